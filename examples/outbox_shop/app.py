"""A shop that takes orders. Each order and the event about it are one transaction: both exist, or neither."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, PositiveInt
from sqlalchemy import CheckConstraint, ForeignKey, create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from hookline.outbox import Event, Outbox

engine = create_engine(os.environ.get("SHOP_DATABASE_URL", "sqlite:///shop.sqlite"))
outbox = Outbox(source={"application": "shop"})


class Base(DeclarativeBase):
    """The shop's tables, and the outbox among them."""


class Product(Base):
    """Something to sell. The database itself refuses to sell more than there is."""

    __tablename__ = "products"
    __table_args__ = (CheckConstraint("stock >= 0", name="enough_stock"),)

    sku: Mapped[str] = mapped_column(primary_key=True)
    price_cents: Mapped[int]
    stock: Mapped[int]


class Order(Base):
    """Something sold."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(ForeignKey("products.sku"))
    quantity: Mapped[int]
    total_cents: Mapped[int]


outbox.table(Base.metadata)


class NewOrder(BaseModel):
    """The body of ``POST /orders``."""

    sku: str
    quantity: PositiveInt
    card: str


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Make the tables and put something on the shelves. A real shop would let its migrations do that."""
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        if session.get(Product, "mug") is None:
            session.add_all(
                [
                    Product(sku="mug", price_cents=1250, stock=25),
                    Product(sku="tee", price_cents=2400, stock=1000),
                ]
            )
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=201)
def place_order(new: NewOrder) -> dict[str, int]:
    """Take an order. Whatever fails in here takes the order, its event and the stock back with it."""
    try:
        with Session(engine) as session, session.begin():
            order = book(session, new)
            charge(new.card, order.total_cents)
            return {"id": order.id}
    except IntegrityError:
        raise HTTPException(409, "there is not enough of it left") from None
    except CardRefused:
        raise HTTPException(402, "the card was refused") from None


def book(session: Session, new: NewOrder) -> Order:
    """Write the order, its event and the new stock."""
    product = session.get(Product, new.sku)
    if product is None:
        raise HTTPException(404, "there is no such product")
    order = Order(sku=new.sku, quantity=new.quantity, total_cents=product.price_cents * new.quantity)
    session.add(order)
    session.flush()  # gives it its id
    outbox.publish(
        session,
        Event(
            "order:created",
            {"id": order.id, "sku": order.sku, "quantity": order.quantity, "total_cents": order.total_cents},
            id=f"order-{order.id}-created",
            object={"type": "order", "id": str(order.id)},
            key=str(order.id),
        ),
    )
    product.stock = Product.stock - new.quantity
    session.flush()
    return order


class CardRefused(Exception):
    """The bank says no."""


def charge(card: str, cents: int) -> None:
    """Stands for a call of the bank, which comes last: it cannot be rolled back."""
    if card.endswith("0002") and cents:
        raise CardRefused
