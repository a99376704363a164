"""From the log to the endpoints: match, queue in lanes, take turns, send.

``worker`` leases shards; ``shard`` puts the parts of one together; ``feeder`` reads the log for its lanes; ``roster``
keeps the lanes in step with the subscriptions; ``lane`` is the running side of one; ``turns`` shares the requests in
flight among lanes; ``delivery`` sends and judges. Everything runs on one event loop, without locks.
"""
