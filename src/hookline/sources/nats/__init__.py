"""The bus: a durable NATS JetStream consumer that feeds the log.

A message is acknowledged after the commit of its event. What may be redelivered costs nothing: the log knows each event
by tenant and id and answers that it has it already.
"""

from hookline.sources.nats.options import NatsOptions
from hookline.sources.nats.report import BusReport, inspect_bus
from hookline.sources.nats.source import BatchPublisher, BusMetrics, NatsSource

__all__ = ["NatsSource", "NatsOptions", "BatchPublisher", "BusMetrics", "BusReport", "inspect_bus"]
