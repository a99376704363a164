"""Sends HTTP requests through libcurl, and guards which addresses it may reach."""

from hookline.sender.curl import CurlSender

__all__ = ["CurlSender"]
