"""For those who run it: is it alive, is it ready, what does it count, what does it offer."""

from __future__ import annotations

from collections import Counter

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from hookline import __version__
from hookline.api.problems import NotReady
from hookline.api.route import AnyRoute, Call, NoQuery, Nothing, Reply, Route
from hookline.api.wire import Alive, NodesView, NodeView, Ready, SliceView
from hookline.core.errors import Fault, Forbidden, HooklineError, NotFound, Unauthorized
from hookline.core.model import Millis, Scope
from hookline.core.times import rfc3339
from hookline.ports import Progress

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


async def get_nodes(call: Call[NoQuery, Nothing]) -> NodesView:
    storage, now = call.services.storage, call.services.clock.now()
    slices = await storage.progress(now)
    owned = Counter(each.owner for each in slices)
    nodes = [
        NodeView(
            node.id, node.role, node.version, rfc3339(node.started_at), rfc3339(node.seen_at), owned[node.id]
        )
        for node in await storage.nodes(now, call.services.options.gone_after)
    ]
    return NodesView(nodes, [_slice_view(each, now) for each in slices])


def _slice_view(found: Progress, now: Millis) -> SliceView:
    overdue = max(0, now - found.next_due) / 1000 if found.next_due else 0.0
    lag = max(0, found.head - found.watermark)
    return SliceView(found.shard, found.slice, found.owner or None, lag, found.waiting, overdue)


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
        NoQuery, Nothing, scope=None, tenant=False, anonymous=True,
    ),
    Route(
        "GET", "/readyz", get_ready, "Whether this process can do its work", TAG, Ready,
        NoQuery, Nothing, scope=None, tenant=False, anonymous=True, errors=(NotReady,),
    ),
    Route(
        "GET", "/v1/nodes", get_nodes, "The processes of the installation, and how far the delivery is", TAG,
        NodesView, NoQuery, Nothing, scope=Scope.OPERATOR, tenant=False,
    ),
    Route(
        "GET", "/metrics", get_metrics, "Prometheus metrics", TAG, str,
        NoQuery, Nothing, scope=None, tenant=False, answer_type="text/plain",
        errors=(Unauthorized, Forbidden, NotFound),
        description="Needs an operator key, unless the setting HOOKLINE_METRICS opens it or switches it off.",
    ),
]  # fmt: skip
