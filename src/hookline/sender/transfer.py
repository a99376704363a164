"""One reusable libcurl handle: a request goes in, callbacks gather its answer, an ``Outcome`` comes out."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pycurl
from msgspec import Struct

from hookline.core.model import ClientCertificate
from hookline.ports import ErrorClass, Outcome, Request
from hookline.sender.failures import BROKEN_OFF, NOT_HTTP, explain
from hookline.sender.guard import Guard

MAX_BODY = 64 * 1024
MAX_HEADERS = 64 * 1024
MAX_HEADER_LINES = 100

_KEEP_REQUEST_BODY = 16 * 1024
"""An idle handle holds on to the last body it sent, up to this size."""

_EXPECT_FROM = 1024 * 1024
"""From this size on (EXPECT_100_THRESHOLD), libcurl asks for ``100 Continue`` first; few endpoints know it."""

_MAX_IDLE_SECONDS = 55
"""Just under 60 s, after which common load balancers close a connection without a word."""

_MAX_AGE_SECONDS = 600
"""After this long a connection is not used again, so that endpoints can move to other addresses."""

_PROXY_NONE = ""

SENT_AGAIN = "sent again on a new connection: the endpoint closed the first one, kept open, without an answer"

Done = Callable[[Outcome], None]


class Options(Struct, frozen=True):
    """What is the same for every request of a sender."""

    guard: Guard
    ca_file: str
    http2: bool
    proxy: str
    doh_url: str
    dns_cache: int


class _Lent:
    """A socket on its way to libcurl, which takes a duplicate: ours has to go right after."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def __del__(self) -> None:
        os.close(self._fd)


class Transfer:
    """A handle that is used for one request at a time, always with the same method.

    What is done per request decides what sending costs, so header lines go straight into a list, options that
    stay are set once, and the times of set-up are only asked for when there was one.
    """

    __slots__ = (
        "_address",
        "_body",
        "_certificate",
        "_connect_timeout",
        "_guard",
        "_head",
        "_opened",
        "_plain",
        "_refused",
        "_request",
        "_sent",
        "_sent_before",
        "_size",
        "_total_timeout",
        "_truncated",
        "_used_us",
        "curl",
        "done",
        "method",
    )

    def __init__(self, method: str, options: Options) -> None:
        self.method = method
        self.curl = pycurl.Curl()
        self.done: Done = _nobody
        self._guard = options.guard
        self._request: Request | None = None
        self._head: list[bytes] = []
        self._body: list[bytes] = []
        self._connect_timeout = self._total_timeout = 0.0
        self._certificate: ClientCertificate | None = None
        self._forget()
        self._configure(options)

    # --- one request ---------------------------------------------------------------------------------

    def begin(self, request: Request, done: Done) -> None:
        """Load the request. Raises ``pycurl.error`` or ``ValueError`` if libcurl cannot take it."""
        setopt = self.curl.setopt
        self.done = done
        self._request = request
        setopt(pycurl.URL, request.url)
        # "name:" would have libcurl leave the header out; "name;" is its form of an empty value.
        headers = [line[:-2] + ";" if line.endswith(": ") else line for line in request.headers]
        if self.method != "GET":
            body = request.body or b""
            setopt(pycurl.POSTFIELDS, body)
            if len(body) >= _EXPECT_FROM:
                headers.append("Expect:")
        setopt(pycurl.HTTPHEADER, headers)
        if request.connect_timeout != self._connect_timeout:
            self._connect_timeout = request.connect_timeout
            setopt(pycurl.CONNECTTIMEOUT_MS, _milliseconds(request.connect_timeout))
        if request.total_timeout != self._total_timeout:
            self._total_timeout = request.total_timeout
            setopt(pycurl.TIMEOUT_MS, _milliseconds(request.total_timeout))
        if request.client_certificate is not self._certificate:
            self._show(request.client_certificate)

    def _show(self, certificate: ClientCertificate | None) -> None:
        """Have the handle show this certificate. libcurl keeps the connections of different certificates apart."""
        self._certificate = certificate
        self.curl.setopt(pycurl.SSLCERT_BLOB, certificate and certificate.certificate.encode())
        self.curl.setopt(pycurl.SSLKEY_BLOB, certificate and certificate.key.encode())

    def answered(self) -> Outcome:
        """The outcome of a request that libcurl carried through."""
        raw = b"".join(self._head)
        if fault := self._header_fault(raw):
            return self._outcome(0, ErrorClass.PROTOCOL, f"{NOT_HTTP}: {fault}", raw)
        if (
            b"\n\r\n" not in raw and b"\n\n" not in raw
        ):  # libcurl takes the end of the connection for their end
            return self._outcome(0, ErrorClass.RESET, BROKEN_OFF, raw)
        note = SENT_AGAIN if self._sent_before else ""
        return self._outcome(self.curl.getinfo(pycurl.RESPONSE_CODE), None, note, raw)

    def failed(self, code: int, message: str) -> Outcome:
        """The outcome of a request that libcurl gave up."""
        if code == pycurl.E_WRITE_ERROR and self._truncated:
            return self.answered()
        if self._refused:
            return self._outcome(0, ErrorClass.ADDRESS_REFUSED, self._refused, b"")
        if code == pycurl.E_COULDNT_CONNECT and (number := self.curl.getinfo(pycurl.OS_ERRNO)):
            message = os.strerror(number)
        limits = (self._connect_timeout, self._total_timeout)
        kind, detail = explain(code, message, limits, connected=self._sent)
        if self._sent_before:
            detail = f"{detail} ({SENT_AGAIN})"
        return self._outcome(0, kind, detail, b"".join(self._head))

    def send_again(self, code: int) -> bool:
        """Whether the request failed only because a connection kept open was closed; if so, it is ready to be sent
        once more on a new one, in the time that is left.

        libcurl itself would try further old connections, up to five times, and not tell.
        """
        if code != pycurl.E_ABORTED_BY_CALLBACK or self._sent_before:
            return False
        self._used_us = self.curl.getinfo(pycurl.TOTAL_TIME_T)
        left = self._total_timeout - self._used_us / 1_000_000
        if left <= 0:
            return False
        self._sent, self._sent_before = False, True
        self._head.clear()
        self.curl.setopt(pycurl.FRESH_CONNECT, 1)
        self.curl.setopt(pycurl.TIMEOUT_MS, _milliseconds(left))
        return True

    def reset(self) -> None:
        """Make ready for the next request."""
        if self._request and self._request.body and len(self._request.body) > _KEEP_REQUEST_BODY:
            self.curl.setopt(pycurl.POSTFIELDS, b"")
        if self._sent_before:
            self.curl.setopt(pycurl.FRESH_CONNECT, 0)
            self._total_timeout = 0.0
        self._head.clear()
        self._body.clear()
        self._forget()

    def close(self) -> None:
        self.curl.close()

    def _forget(self) -> None:
        self.done = _nobody
        self._request = None
        self._address = ""
        self._refused = ""
        self._opened = False
        self._plain = False
        self._truncated = False
        self._sent = False
        self._sent_before = False
        self._used_us = 0
        self._size = 0

    # --- options -------------------------------------------------------------------------------------

    def _configure(self, options: Options) -> None:
        setopt = self.curl.setopt
        self._set_method()
        setopt(pycurl.NOSIGNAL, 1)
        setopt(pycurl.TCP_NODELAY, 1)
        setopt(pycurl.PATH_AS_IS, 1)
        setopt(pycurl.FOLLOWLOCATION, 0)
        setopt(pycurl.HTTP_CONTENT_DECODING, 0)
        setopt(pycurl.HTTP09_ALLOWED, 0)
        setopt(pycurl.NETRC, pycurl.NETRC_IGNORED)
        setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        setopt(pycurl.MAXAGE_CONN, _MAX_IDLE_SECONDS)
        setopt(pycurl.MAXLIFETIME_CONN, _MAX_AGE_SECONDS)
        setopt(pycurl.PROXY, options.proxy or _PROXY_NONE)
        setopt(pycurl.NOPROXY, _PROXY_NONE)
        version = pycurl.CURL_HTTP_VERSION_2TLS if options.http2 else pycurl.CURL_HTTP_VERSION_1_1
        setopt(pycurl.HTTP_VERSION, version)
        setopt(pycurl.DNS_CACHE_TIMEOUT, options.dns_cache)
        self._set_trust(options)
        setopt(pycurl.HEADERFUNCTION, self._head.append)
        setopt(pycurl.WRITEFUNCTION, self._write)
        setopt(pycurl.PREREQFUNCTION, self._before_sending)
        setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        setopt(pycurl.SOCKOPTFUNCTION, _keep_from_children)

    def _set_method(self) -> None:
        if self.method == "GET":
            self.curl.setopt(pycurl.HTTPGET, 1)
            return
        self.curl.setopt(pycurl.POST, 1)
        if self.method != "POST":
            self.curl.setopt(pycurl.CUSTOMREQUEST, self.method)

    def _set_trust(self, options: Options) -> None:
        setopt = self.curl.setopt
        setopt(pycurl.SSL_VERIFYPEER, 1)
        setopt(pycurl.SSL_VERIFYHOST, 2)
        setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        setopt(pycurl.CAINFO, options.ca_file)
        if options.doh_url:
            setopt(pycurl.DOH_URL, options.doh_url)

    # --- callbacks from libcurl (none of them may raise) ---------------------------------------------

    def _write(self, chunk: bytes) -> int | None:
        room = MAX_BODY - self._size
        if len(chunk) <= room:
            self._size += len(chunk)
            self._body.append(chunk)
            return None
        self._body.append(chunk[:room])
        self._size = MAX_BODY
        self._truncated = True
        return 0  # fewer than given: libcurl stops and closes the connection

    def _before_sending(self, ip: str, _local_ip: str, port: int, _local_port: int) -> int:
        self._address = _place(ip, port)
        if self._sent:
            return pycurl.PREREQFUNC_ABORT  # libcurl starts over: see ``send_again``
        self._sent = True
        return pycurl.PREREQFUNC_OK

    def _open_socket(self, _purpose: int, target: pycurl.CurlSockAddr) -> _Lent | int:
        """Open a socket to the final address, or refuse. One refused address refuses the name as a whole."""
        if target.family not in (socket.AF_INET, socket.AF_INET6):
            self._refused = "only IPv4 and IPv6 addresses are called"
        if self._refused:
            return pycurl.SOCKET_BAD
        ip, port = str(target.addr[0]), int(target.addr[1])
        self._opened = True
        self._address = _place(ip, port)
        plain = self._request is not None and self._request.url[:5].lower() == "http:"
        self._refused = self._guard.refusal(ip, port, plain=plain) or ""
        if self._refused:
            return pycurl.SOCKET_BAD
        try:
            return _Lent(socket.socket(target.family, target.socktype, target.protocol).detach())
        except OSError:
            return pycurl.SOCKET_BAD

    # --- what came of it -----------------------------------------------------------------------------

    def _header_fault(self, raw: bytes) -> str:
        if len(raw) > MAX_HEADERS:
            return f"the headers of its answer are longer than {MAX_HEADERS // 1024} KiB"
        if len(self._head) > MAX_HEADER_LINES:
            return f"its answer has more than {MAX_HEADER_LINES} header lines"
        lower = raw.lower()
        if b"\ntransfer-encoding:" in lower and b"\ncontent-length:" in lower:
            # RFC 9112 §6.3: it "ought to be handled as an error"
            return "its answer has both Content-Length and Transfer-Encoding"
        return ""

    def _outcome(self, status: int, error: ErrorClass | None, detail: str, raw: bytes) -> Outcome:
        info = self.curl.getinfo
        dns = connect = tls = 0
        if self._opened:
            dns = info(pycurl.NAMELOOKUP_TIME_T)
            connect = info(pycurl.CONNECT_TIME_T)
            tls = info(pycurl.APPCONNECT_TIME_T)
        return Outcome(
            status=status,
            error=error,
            detail=detail,
            address=self._address,
            dns_us=dns,
            connect_us=max(connect - dns, 0),
            tls_us=max(tls - connect, 0),
            first_byte_us=info(pycurl.STARTTRANSFER_TIME_T) + self._used_us,
            total_us=info(pycurl.TOTAL_TIME_T) + self._used_us,
            headers=_last_block(raw)[:MAX_HEADERS],
            body=b"".join(self._body),
            truncated=self._truncated,
        )


def _nobody(_outcome: Outcome) -> None:
    """Stands for the receiver of an outcome while there is no request."""


def _milliseconds(seconds: float) -> int:
    """At least 1: libcurl takes 0 for its own defaults (300 s to connect, no end in total)."""
    return max(1, round(seconds * 1000))


def _place(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _last_block(raw: bytes) -> bytes:
    """The headers of the final answer, without those of 1xx answers before it."""
    start = raw.rfind(b"\nHTTP/")
    return raw if start < 0 else raw[start + 1 :]


def _keep_from_children(fd: int, _purpose: int) -> int:
    """The duplicate that libcurl works on would be inherited by programs this process starts."""
    os.set_inheritable(fd, False)
    return pycurl.SOCKOPT_OK
