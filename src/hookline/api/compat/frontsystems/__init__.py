"""Front Systems: webhooks, their types, and the log by which an integrator sees what did not arrive."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.types import Scope

from hookline.api.compat.base import MAX_PARAMETERS, MAX_QUERY, Answer, Operation, of_tenant
from hookline.api.compat.frontsystems.events import get_event, list_events, resend_event
from hookline.api.compat.frontsystems.views import problem_view
from hookline.api.compat.frontsystems.webhooks import (
    create_webhook,
    delete_webhook,
    get_schema,
    get_webhook,
    list_types,
    list_webhooks,
    update_webhook,
)
from hookline.api.http import header
from hookline.api.keyring import Caller
from hookline.api.services import Services
from hookline.core.errors import HooklineError, Unauthorized
from hookline.core.model import Scope as KeyScope
from hookline.core.model import Tenant

PREFIX = "/frontsystems"
_API = f"{PREFIX}/restapi/V2/api"
_WEBHOOKS = f"{_API}/Webhooks"
_WEBHOOK = f"{_WEBHOOKS}/{{webhookId}}"
_TYPES = f"{_API}/WebhooksTypes"
_EVENTS = f"{_API}/WebhooksEvents/{{webhookId}}"
_EVENT = "{webhookEventId}"

_BOTH = (
    "send the header x-api-key, and Ocp-Apim-Subscription-Key as a header or subscription-key in the query"
)


class FrontSystems:
    """See ``Platform``. Answers of the platform's gateway to unknown callers name the same scheme."""

    prefix = PREFIX
    challenge = b'AzureApiManagementKey realm="hookline", name="Ocp-Apim-Subscription-Key", type="header"'
    any_case = True
    operations = (
        Operation("GET", _WEBHOOKS, list_webhooks, KeyScope.READ_SUBSCRIPTIONS),
        Operation("POST", _WEBHOOKS, create_webhook, KeyScope.CREATE_SUBSCRIPTIONS, changes=True),
        Operation("GET", _WEBHOOK, get_webhook, KeyScope.READ_SUBSCRIPTIONS),
        Operation("PUT", _WEBHOOK, update_webhook, KeyScope.UPDATE_SUBSCRIPTIONS, changes=True),
        Operation("DELETE", _WEBHOOK, delete_webhook, KeyScope.DELETE_SUBSCRIPTIONS, changes=True),
        Operation("GET", _TYPES, list_types),
        Operation("GET", f"{_TYPES}/{{webhookType:path}}/schema", get_schema),
        Operation("GET", _EVENTS, list_events),
        Operation("GET", f"{_EVENTS}/{_EVENT}", get_event),
        Operation("POST", f"{_EVENTS}/deliver/{_EVENT}", resend_event, KeyScope.MANAGE),
    )

    async def identify(self, services: Services, scope: Scope) -> tuple[Caller, Tenant]:
        """Both credentials are needed: ``x-api-key`` is a key of the tenant, the subscription key its id."""
        secret, tenant_id = header(scope, b"x-api-key").decode("latin-1"), _subscription_key(scope)
        if not secret or not tenant_id:
            raise Unauthorized(_BOTH)
        caller = await services.keyring.find_secret(secret)
        return caller, of_tenant(caller, await services.keyring.tenant(tenant_id))

    def failure(self, error: HooklineError, request_id: str) -> Answer:
        """A problem as ASP.NET writes it. Faults of the input are 400 there."""
        view = problem_view(error, request_id)
        return Answer(view, view.status)


def _subscription_key(scope: Scope) -> str:
    """The header wins over the query; empty if there is neither, or the query is no query."""
    given = header(scope, b"ocp-apim-subscription-key")
    if given or len(scope["query_string"]) > MAX_QUERY:
        return given.decode("latin-1")
    try:
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=MAX_PARAMETERS)
    except ValueError:
        return ""
    return next((value for name, value in pairs if name.lower() == "subscription-key"), "")
