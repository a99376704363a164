"""Avvyr's Events API: ``/avvyr/v1/{tenantCode}/account/event-subscriptions``.

``{tenantCode}`` is the tenant's id, the bearer token one of its API keys.
"""

from __future__ import annotations

from starlette.types import Scope

from hookline.api.compat.avvyr.operations import OPERATIONS
from hookline.api.compat.avvyr.wire import ErrorAnswer, ErrorView
from hookline.api.compat.base import Answer, bearer, of_tenant
from hookline.api.keyring import Caller
from hookline.api.services import Services
from hookline.core.errors import HooklineError, InvalidInput
from hookline.core.model import Tenant
from hookline.engine.manage.tenants import TENANT_ID


class AvvyrApi:
    """See ``Platform``."""

    prefix = "/avvyr"
    operations = OPERATIONS
    challenge = b'Bearer realm="avvyr"'
    any_case = False

    async def identify(self, services: Services, scope: Scope) -> tuple[Caller, Tenant]:
        """See ``Platform``."""
        caller = await bearer(services, scope)
        code: str = scope["path_params"]["tenantCode"]
        if caller.tenant is not None:
            named = caller.tenant if caller.tenant.id == code else None
        else:
            named = await services.keyring.tenant(code) if TENANT_ID.fullmatch(code) else None
        return caller, of_tenant(caller, named)

    def failure(self, error: HooklineError, request_id: str) -> Answer:
        """Their pages show no errors: the form is our choice. What is not valid is 400, as everywhere but here."""
        status = 400 if isinstance(error, InvalidInput) else error.status
        return Answer(ErrorAnswer(ErrorView(error.code, error.detail, list(error.faults))), status)
