"""The native REST API: an ASGI application over the engine's services."""

from hookline.api.app import create_app
from hookline.api.keyring import follow_changes
from hookline.api.services import Options, Services, build_services

__all__ = ["Options", "Services", "build_services", "create_app", "follow_changes"]
