"""Wires all parts together and runs them."""

from hookline.app.serve import run_migrate, run_server

__all__ = ["run_migrate", "run_server"]
