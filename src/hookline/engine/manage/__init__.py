"""What owners and operators do: tenants, keys, the catalogue, subscriptions, test-sends and replays."""

from hookline.engine.manage.event_types import EventTypes, EventTypeSpec
from hookline.engine.manage.replays import Range, Replays
from hookline.engine.manage.spec import MASK, SubscriptionSpec
from hookline.engine.manage.subscriptions import Subscriptions
from hookline.engine.manage.tenants import TENANT_ID, IssuedKey, NewKey, NewTenant, Tenants, digest
from hookline.engine.manage.trials import Preview, Trial, Trials

__all__ = [
    "MASK",
    "TENANT_ID",
    "EventTypeSpec",
    "EventTypes",
    "IssuedKey",
    "NewKey",
    "NewTenant",
    "Preview",
    "Range",
    "Replays",
    "SubscriptionSpec",
    "Subscriptions",
    "Tenants",
    "Trial",
    "Trials",
    "digest",
]
