"""The sender: libcurl's multi interface on an epoll object of its own, driven by the running asyncio loop.

All sockets of libcurl are in one epoll object, and the loop watches only that one: a single callback per turn
handles every socket that is ready. A socket stays in epoll while its connection idles, which saves a system
call for each request; how long libcurl wants to wait is asked once a batch, not told to us at every change.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import ssl
import threading
from collections.abc import Iterable
from pathlib import Path

import certifi
import pycurl

from hookline.core.address import AddressRule
from hookline.ports import ErrorClass, Outcome, Request
from hookline.sender.guard import Guard
from hookline.sender.transfer import Done, Options, Transfer

MAX_IDLE_CONNECTIONS = 1024
MAX_IDLE_HANDLES = 256
MAX_IN_FLIGHT = 16_384
DNS_CACHE_SECONDS = 30
CLOSE_SECONDS = 2.0
_BATCH = 256

_EPOLL = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
_IDLE = 0

# For all combinations of EPOLLIN 1, EPOLLPRI 2, EPOLLOUT 4, EPOLLERR 8, EPOLLHUP 16: reading shows trouble.
_ACTION = tuple(
    (pycurl.CSELECT_IN if events & ~select.EPOLLOUT else 0)
    | (pycurl.CSELECT_OUT if events & select.EPOLLOUT else 0)
    for events in range(32)
)


def default_ca_file() -> str:
    """The certificates this system trusts: OpenSSL's own place if there is one, else those of certifi."""
    paths = ssl.get_default_verify_paths()
    bundle = Path(
        paths.capath or "/etc/ssl/certs", "ca-certificates.crt"
    )  # Debian's, with the site's own authorities
    return paths.cafile or (str(bundle) if bundle.is_file() else certifi.where())


class CurlSender:
    """The ``Sender`` of production. Make it inside the loop that it is to run on.

    ``ca_file``: a PEM file of authorities to trust instead of the system's. ``doh_url``: resolve names by DNS
    over HTTPS there instead of the system's resolver. ``proxy``: send everything through it; then the proxy
    must guard which addresses are called, for only it resolves the names. ``own_addresses``: the (IP, port)
    pairs this server listens on, which are never called. ``dns_cache``: seconds for which an answer of the
    resolver is used again (whatever it is, the guard judges each address that is connected to).
    """

    def __init__(
        self,
        rule: AddressRule,
        *,
        ca_file: str | Path | None = None,
        http2: bool = True,
        proxy: str = "",
        doh_url: str = "",
        own_addresses: Iterable[tuple[str, int]] = (),
        dns_cache: int = DNS_CACHE_SECONDS,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._options = Options(
            guard=Guard(rule, own_addresses, behind_proxy=bool(proxy)),
            ca_file=str(ca_file or default_ca_file()),
            http2=http2,
            proxy=proxy,
            doh_url=doh_url,
            dns_cache=dns_cache,
        )
        self._max_in_flight = max_in_flight
        self._loop = asyncio.get_running_loop()
        self._transfers: dict[pycurl.Curl, Transfer] = {}
        self._idle: dict[str, list[Transfer]] = {}
        self._in_flight = 0
        self._watched: dict[int, int] = {}
        self._kick: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # uvloop gives a handle without a time for one that is due at once
        self._due = 0.0
        self._closed = False
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_MAXCONNECTS, MAX_IDLE_CONNECTIONS)
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._on_ready)

    @property
    def in_flight(self) -> int:
        """How many requests have been started and not yet answered."""
        return self._in_flight

    # --- the port ------------------------------------------------------------------------------------

    def start(self, request: Request, done: Done) -> None:
        """Send; ``done`` is called once, later, on the loop's thread. Raises ``RuntimeError`` once closed."""
        if self._closed:
            raise RuntimeError("the sender is closed")
        if self._in_flight >= self._max_in_flight:
            return self._fail(done, f"more than {self._max_in_flight} requests are in flight")
        idle = self._idle.get(request.method)
        transfer = idle.pop() if idle else self._new_transfer(request.method)
        try:
            transfer.begin(request, done)
        except (pycurl.error, ValueError, TypeError) as error:
            self._discard(transfer)
            return self._fail(done, f"the request cannot be sent: {error}")
        self._multi.add_handle(transfer.curl)
        self._in_flight += 1
        self._kick_soon()
        return None

    async def close(self) -> None:
        """Give up what is in flight (its ``done`` is not called) and free all sockets."""
        if self._closed:
            return
        self._closed = True
        for handle in (self._kick, self._timer):
            if handle:
                handle.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._in_flight = 0
        freed = asyncio.Event()
        threading.Thread(target=self._free, args=(freed,), name="sender-close", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await freed.wait()

    def _free(self, freed: asyncio.Event) -> None:
        """Free what libcurl holds. It waits for names that are being resolved, which can take the system 10 s
        and more, so this runs in a thread of its own, and nobody waits for that long."""
        self._multi.close()
        for transfer in self._transfers.values():
            transfer.close()
        self._transfers.clear()
        self._idle.clear()
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(freed.set)

    # --- handles -------------------------------------------------------------------------------------

    def _new_transfer(self, method: str) -> Transfer:
        transfer = Transfer(method, self._options)
        self._transfers[transfer.curl] = transfer
        return transfer

    def _discard(self, transfer: Transfer) -> None:
        del self._transfers[transfer.curl]
        transfer.close()

    def _release(self, transfer: Transfer) -> None:
        idle = self._idle.setdefault(transfer.method, [])
        if len(idle) >= MAX_IDLE_HANDLES:
            return self._discard(transfer)
        transfer.reset()
        idle.append(transfer)
        return None

    def _fail(self, done: Done, detail: str) -> None:
        outcome = Outcome(error=ErrorClass.INTERNAL, detail=detail)
        self._loop.call_soon(lambda: None if self._closed else done(outcome))

    # --- libcurl and the loop ------------------------------------------------------------------------

    def _watch(self, what: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        """Take note of what libcurl waits for. A socket it lets go of may be one that only idles: it stays.

        Its number may come back for another socket; by then the kernel has forgotten the first one.
        """
        if what == pycurl.POLL_REMOVE or self._closed:
            self._watched[fd] = _IDLE
            return
        events = _EPOLL[what]
        if fd in self._watched:
            try:
                self._epoll.modify(fd, events)
            except FileNotFoundError:
                self._epoll.register(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watched[fd] = events

    def _on_ready(self) -> None:
        act = self._multi.socket_action
        watched = self._watched
        for fd, events in self._epoll.poll(0, _BATCH):
            if watched.get(fd):
                act(fd, _ACTION[events & 31])
            else:
                self._unwatch(fd)
        self._collect()

    def _unwatch(self, fd: int) -> None:
        """An idle connection says something, most often its end: libcurl looks before it uses one again."""
        self._watched.pop(fd, None)
        with contextlib.suppress(OSError):  # closed meanwhile
            self._epoll.unregister(fd)

    def _kick_soon(self) -> None:
        if self._kick is None:
            self._kick = self._loop.call_soon(self._on_kick)

    def _on_kick(self) -> None:
        self._kick = None
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() < self._due:
            self._start_timer()
            return
        self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()

    def _collect(self) -> None:
        """Hand out what is finished, then see when libcurl wants to be called next."""
        left = 1
        while left:
            left, answered, failed = self._multi.info_read()
            for curl in answered:
                transfer = self._transfers[curl]
                self._finish(transfer, transfer.answered())
            for curl, code, message in failed:
                transfer = self._transfers[curl]
                if transfer.send_again(code):
                    self._multi.remove_handle(curl)
                    self._multi.add_handle(curl)
                else:
                    self._finish(transfer, transfer.failed(code, message))
        self._set_timer()

    def _finish(self, transfer: Transfer, outcome: Outcome) -> None:
        done = transfer.done
        self._multi.remove_handle(transfer.curl)
        self._in_flight -= 1
        self._release(transfer)
        try:
            done(outcome)
        except Exception as error:  # noqa: BLE001 - one receiver's fault must not stop the others' outcomes
            self._loop.call_exception_handler(
                {"message": "a callback of the sender failed", "exception": error}
            )

    def _set_timer(self) -> None:
        """A timer that is too early only looks again, so it is moved just when it is too late."""
        wait: int = self._multi.timeout()
        if wait == 0:
            self._kick_soon()
        elif wait > 0:
            self._due = self._loop.time() + wait / 1000
            if self._timer is None or self._timer_at > self._due:
                if self._timer:
                    self._timer.cancel()
                self._start_timer()

    def _start_timer(self) -> None:
        self._timer, self._timer_at = self._loop.call_at(self._due, self._on_timer), self._due
