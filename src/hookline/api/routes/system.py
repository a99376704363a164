"""For those who run it: is it alive, is it ready, what does it count, what does it offer."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from hookline import __version__
from hookline.api.problems import NotReady
from hookline.api.route import AnyRoute, Call, NoQuery, Nothing, Reply, Route
from hookline.api.wire import Alive, Ready
from hookline.core.errors import Fault, Forbidden, HooklineError, NotFound, Unauthorized
from hookline.core.model import Scope

TAG = "System"


async def get_alive(_: Call[NoQuery, Nothing]) -> Alive:
    return Alive("alive", __version__)


async def get_ready(call: Call[NoQuery, Nothing]) -> Ready:
    states: dict[str, str] = {}
    faults: list[Fault] = []
    try:
        await call.services.storage.ping()
        states["storage"] = "writable"
    except HooklineError as error:
        faults.append(Fault("storage", error.detail))
    for name, check in call.services.checks.items():
        try:
            states[name] = await check()
        except HooklineError as error:
            faults.append(Fault(name, error.detail))
    if faults:
        raise NotReady(", ".join(f"{fault.field}: {fault.message}" for fault in faults), faults)
    return Ready("ready", states)


async def get_metrics(call: Call[NoQuery, Nothing]) -> Reply:
    access = call.services.options.metrics
    if access == "off":
        raise NotFound("metrics are switched off")
    if access != "open":
        if call.caller is None:
            raise Unauthorized("metrics need an operator key")
        if Scope.OPERATOR not in call.caller.may:
            raise Forbidden("metrics need an operator key")
    text = generate_latest(call.services.metrics.registry)
    return Reply(raw=text, content_type=CONTENT_TYPE_LATEST.encode())


ROUTES: list[AnyRoute] = [
    Route(
        "GET", "/healthz", get_alive, "Whether this process answers", TAG, Alive,
        NoQuery, Nothing, scope=None, tenant=False,
    ),
    Route(
        "GET", "/readyz", get_ready, "Whether this process can do its work", TAG, Ready,
        NoQuery, Nothing, scope=None, tenant=False, errors=(NotReady,),
    ),
    Route(
        "GET", "/metrics", get_metrics, "Prometheus metrics", TAG, str,
        NoQuery, Nothing, scope=None, tenant=False, answer_type="text/plain",
        errors=(Unauthorized, Forbidden, NotFound),
        description="Needs an operator key, unless the setting HOOKLINE_METRICS opens it or switches it off.",
    ),
]  # fmt: skip
