"""libcurl's error codes, in our classes and in plain words for the person who owns the endpoint."""

from __future__ import annotations

import pycurl

from hookline.ports import ErrorClass

CLOSED_BEFORE_ANSWER = "the endpoint closed the connection before answering"
RESET_BY_ENDPOINT = "the endpoint reset the connection"
# Codes of libcurl that pycurl gives no names to (curl.h).
_E_WEIRD_SERVER_REPLY = 8
_E_HTTP2_STREAM = 92
_E_PROXY = 97
_E_SSL_CLIENT_CERTIFICATE = 98
_E_TOO_LARGE = 100

BROKEN_OFF = "the endpoint broke off in the middle of its answer"
NOT_HTTP = "the endpoint did not answer with valid HTTP"

_PLAIN: dict[int, tuple[ErrorClass, str]] = {
    pycurl.E_COULDNT_RESOLVE_HOST: (ErrorClass.DNS, "the host name could not be resolved"),
    pycurl.E_COULDNT_RESOLVE_PROXY: (ErrorClass.DNS, "the name of the proxy could not be resolved"),
    pycurl.E_GOT_NOTHING: (ErrorClass.RESET, CLOSED_BEFORE_ANSWER),
    pycurl.E_PARTIAL_FILE: (ErrorClass.RESET, BROKEN_OFF),
    pycurl.E_ABORTED_BY_CALLBACK: (
        ErrorClass.RESET,
        CLOSED_BEFORE_ANSWER,
    ),  # and no time was left to try again
    pycurl.E_SSL_CACERT_BADFILE: (ErrorClass.INTERNAL, "the file of trusted certificates cannot be read"),
}

_WITH_REASON: dict[int, tuple[ErrorClass, str]] = {
    pycurl.E_UNSUPPORTED_PROTOCOL: (ErrorClass.PROTOCOL, NOT_HTTP),
    _E_WEIRD_SERVER_REPLY: (ErrorClass.PROTOCOL, NOT_HTTP),
    pycurl.E_HTTP2: (ErrorClass.PROTOCOL, "the endpoint broke the rules of HTTP/2"),
    _E_HTTP2_STREAM: (ErrorClass.PROTOCOL, "the endpoint broke the rules of HTTP/2"),
    pycurl.E_BAD_CONTENT_ENCODING: (ErrorClass.PROTOCOL, NOT_HTTP),
    _E_TOO_LARGE: (ErrorClass.PROTOCOL, f"{NOT_HTTP}: a header of its answer is too long"),
    _E_PROXY: (ErrorClass.CONNECT, "the proxy refused the connection"),
    pycurl.E_COULDNT_CONNECT: (ErrorClass.CONNECT, "no connection"),
    pycurl.E_URL_MALFORMAT: (ErrorClass.ADDRESS_REFUSED, "the URL is not valid"),
}
"""Classes whose text is followed by libcurl's own reason."""

_TLS = frozenset(
    (
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_INVALIDCERTSTATUS,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_SHUTDOWN_FAILED,
        pycurl.E_USE_SSL_FAILED,
        _E_SSL_CLIENT_CERTIFICATE,
    )
)

_SIGNS_OF_RESET = ("reset by peer", "broken pipe", "connection died", "eof", "closed abruptly", "was reset")

_REASONS = (
    ("certificate has expired", "the certificate has expired"),
    ("certificate is not yet valid", "the certificate is not valid yet"),
    ("self-signed certificate", "the certificate is self-signed or its authority is not trusted"),
    ("unable to get local issuer", "the authority that issued the certificate is not trusted"),
    ("no alternative certificate subject", "the certificate is for another host name"),
    ("does not match", "the certificate is for another host name"),
    ("certificate required", "the endpoint requires a client certificate; give the subscription one"),
    ("alert bad certificate", "the endpoint does not accept the client certificate"),
    ("alert unknown ca", "the endpoint does not trust the authority that issued the client certificate"),
    ("alert certificate expired", "the endpoint says that the client certificate has expired"),
    ("certificate verification failed", "the endpoint says that the client certificate has expired"),
    ("alert certificate unknown", "the endpoint does not accept the client certificate"),
    (
        "alert handshake failure",
        "no secure connection could be agreed on (does it require a client certificate?)",
    ),
    ("unsupported protocol", "the endpoint offers no TLS version from 1.2 on"),
    ("protocol version", "the endpoint offers no TLS version from 1.2 on"),
    ("wrong version number", "the endpoint does not speak TLS on this port"),
    ("packet length too long", "the endpoint does not speak TLS on this port"),
    ("connection refused", "nothing listens at this address and port"),
    ("no route to host", "there is no route to the endpoint"),
    ("network is unreachable", "there is no route to the endpoint"),
    ("too large response headers", "the headers of its answer are too long"),
    ("too many response headers", "the headers of its answer are too many"),
    ("http/0.9", "its answer does not begin with a status line"),
)
"""What OpenSSL, the system and libcurl say, and what it means to the owner of the endpoint."""


def explain(
    code: int, message: str, limits: tuple[float, float], *, connected: bool
) -> tuple[ErrorClass, str]:
    """The class of a libcurl error and its plain words. ``message`` is libcurl's own text.

    ``limits`` are the seconds given to connect and in total; ``connected`` says whether the connection stood
    (TLS included), which tells which of them was reached.
    """
    if message.startswith("CONNECT tunnel failed"):
        return ErrorClass.CONNECT, f"the proxy refused the connection: {_reason(message)}"
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return _timeout(limits, connected=connected)
    if code in (pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR):
        return _broken(message, connected=connected)
    if code == pycurl.E_SSL_CONNECT_ERROR and _is_broken_off(message):
        return ErrorClass.TLS, "the endpoint closed the connection while TLS was being set up"
    if code in _TLS or code == pycurl.E_SSL_CONNECT_ERROR:
        return ErrorClass.TLS, _reason(message) or "no secure connection could be agreed on"
    if code in _PLAIN:
        return _PLAIN[code]
    if code in _WITH_REASON:
        kind, text = _WITH_REASON[code]
        return kind, f"{text}: {_reason(message)}" if message else text
    return ErrorClass.INTERNAL, f"libcurl error {code}: {_reason(message)}"


def _timeout(limits: tuple[float, float], *, connected: bool) -> tuple[ErrorClass, str]:
    if connected:
        return ErrorClass.TIMEOUT, f"no complete answer within {limits[1]:g} s"
    return ErrorClass.CONNECT_TIMEOUT, f"no connection within {min(limits):g} s"


def _is_broken_off(message: str) -> bool:
    lower = message.lower()
    return any(sign in lower for sign in _SIGNS_OF_RESET)


def _broken(message: str, *, connected: bool) -> tuple[ErrorClass, str]:
    if " alert " in message:  # with TLS 1.3, our certificate is judged when we believe the connection stands
        return ErrorClass.TLS, _reason(message)
    if not _is_broken_off(message):
        return ErrorClass.PROTOCOL, f"{NOT_HTTP}: {_reason(message)}"
    if not connected:
        return ErrorClass.TLS, "the endpoint closed the connection while TLS was being set up"
    return ErrorClass.RESET, RESET_BY_ENDPOINT


def _reason(message: str) -> str:
    lower = message.lower()
    for sign, meaning in _REASONS:
        if sign in lower:
            return meaning
    return message[:200]
