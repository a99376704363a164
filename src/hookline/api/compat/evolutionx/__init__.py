"""EvolutionX: webhooks, the event log, the request and payload logs, usage of the charged feature.

The vendor publishes what these hold, but not the paths and names of its API: those here are our choice, in the words of
its pages. docs/platforms/evolutionx.md says which statement is covered by what.
"""

from __future__ import annotations

from starlette.types import Scope

from hookline.api.compat.base import Answer, bearer
from hookline.api.compat.evolutionx import logs, usage, webhooks
from hookline.api.compat.evolutionx.forms import failed
from hookline.api.http import header
from hookline.api.ingest import TENANT_HEADER, tenant_of
from hookline.api.keyring import Caller
from hookline.api.services import Services
from hookline.core.errors import HooklineError
from hookline.core.model import Tenant


class EvolutionX:
    """See ``Platform``. The key names the account; an operator's key needs ``Hookline-Tenant``."""

    prefix = "/evolutionx"
    operations = (*webhooks.OPERATIONS, *logs.OPERATIONS, *usage.OPERATIONS)
    challenge = b'Bearer realm="evolutionx"'
    any_case = False

    async def identify(self, services: Services, scope: Scope) -> tuple[Caller, Tenant]:
        """See ``Platform``."""
        caller = await bearer(services, scope)
        return caller, await tenant_of(services, caller, header(scope, TENANT_HEADER))

    def failure(self, error: HooklineError, request_id: str) -> Answer:
        """See ``Platform``."""
        return failed(error.status, error.code, error.detail, error.faults, request_id)
