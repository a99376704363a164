"""Where things lie: the shard of a tenant's log, and the slice of a shard that delivers a subscription."""

from __future__ import annotations


def shard_of(tenant_no: int, shards: int) -> int:
    """The shard that a tenant's events live in."""
    return tenant_no % shards


def slice_of(subscription_no: int, slices: int) -> int:
    """The slice of its tenant's shard that a subscription is delivered in."""
    return subscription_no % slices
