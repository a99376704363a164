"""The management APIs of the four platforms, each under its own prefix and in its own manner."""

from __future__ import annotations

from starlette.routing import BaseRoute

from hookline.api.compat.avvyr import AvvyrApi
from hookline.api.compat.base import Platform, routes_of
from hookline.api.compat.evolutionx import EvolutionX
from hookline.api.compat.frontsystems import FrontSystems
from hookline.api.compat.shipstream import ShipStream
from hookline.api.http import RequestIds
from hookline.api.services import Services

PLATFORMS: tuple[Platform, ...] = (AvvyrApi(), EvolutionX(), ShipStream(), FrontSystems())


def compatible_routes(services: Services, request_ids: RequestIds) -> list[BaseRoute]:
    """The paths of all platforms."""
    return [route for platform in PLATFORMS for route in routes_of(platform, services, request_ids)]
