"""Hookline: a self-hosted platform for event-driven webhooks."""

__version__ = "0.1.0"
