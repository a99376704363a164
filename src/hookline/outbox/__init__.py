"""Publish events from a database transaction: the event exists if, and only if, the transaction commits.

For programs that keep their data in PostgreSQL or SQLite, through SQLAlchemy 2, psycopg 3, asyncpg or sqlite3. Needs
nothing but Python and the driver that the program has already. ::

    from hookline.outbox import Event, publish

    with Session(engine) as session:
        session.add(order)
        session.flush()  # gives it its id
        publish(session, Event("order:created", {"id": order.id}, key=str(order.id)))
        session.commit()

With an asynchronous connection, ``await publish(…)``. The event is a row of the table ``hookline_outbox``, which
``create_table`` makes (or ``python -m hookline.outbox sql postgresql`` prints). The relay takes the rows to Hookline
in the order of the commits: ``hookline relay``, or the server itself. An ``Outbox`` of its own has another table, or
defaults for its events.
"""

from hookline.outbox.box import (
    AsyncConnection,
    Outbox,
    SyncConnection,
    create_table,
    drop_table,
    outbox_table,
    publish,
    publish_batch,
)
from hookline.outbox.errors import (
    Fault,
    InvalidEvent,
    InvalidName,
    NoTransaction,
    OutboxError,
    UnsupportedConnection,
)
from hookline.outbox.event import Event, ObjectRef, Source

__all__ = [
    "Event",
    "ObjectRef",
    "Source",
    "publish",
    "publish_batch",
    "Outbox",
    "AsyncConnection",
    "SyncConnection",
    "create_table",
    "drop_table",
    "outbox_table",
    "OutboxError",
    "InvalidEvent",
    "Fault",
    "InvalidName",
    "NoTransaction",
    "UnsupportedConnection",
]
