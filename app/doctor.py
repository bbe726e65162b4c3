"""`pagewalk doctor`: whether this machine can serve, line by line, and what would be right where it cannot.

Each check is a function of the settings that answers one Finding; it changes nothing but a file that it takes away again.
"""

import errno
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from app.settings import Settings
from app.storage import Database
from app.storage.check import health as health_of
from app.storage.check import versions_of
from app.storage.schema import COMPONENTS
from core import cache_dir

OLDEST_PYTHON: Final = (3, 11)
DISK_LOW: Final = 1 << 30
DISK_FULL: Final = 100 << 20
FILES_FEW: Final = 2048
TOLD: Final = 10  # damages that are named
ANSWER_S: Final = 3.0  # that a service on our port may take to say who it is
SHORT: Final = 4096  # bytes of its answer that are read

Verdict = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `wrong` keeps the service from working, a `note` should be known."""

    what: str
    verdict: Verdict
    says: str


def python(_: Settings) -> Finding:
    """The interpreter."""
    have = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Finding("python", "wrong", f"{have}: pagewalk needs {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    return Finding("python", "ok", f"{have} at {sys.executable}")


def packages(_: Settings) -> Finding:
    """What pagewalk needs is installed."""
    try:
        needed = [text.split(";")[0] for text in requires("pagewalk") or () if "extra" not in text]
    except PackageNotFoundError:
        return Finding("packages", "note", "pagewalk runs from its folder, it is not installed: pip install -c constraints.txt -e .")
    missing = [name for name in (_name(text) for text in needed) if not _installed(name)]
    if missing:
        return Finding("packages", "wrong", f"missing: {', '.join(missing)}: pip install -c constraints.txt -e .")
    return Finding("packages", "ok", f"pagewalk {version('pagewalk')}, numba {version('numba')}, numpy {version('numpy')}")


def _name(requirement: str) -> str:
    return requirement.split(">")[0].split("=")[0].split("[")[0].strip()


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def compile_cache(_: Settings) -> Finding:
    """The page loops are compiled and stand where they are looked for."""
    folder = cache_dir()
    compiled = sum(path.is_file() for path in folder.rglob("*"))
    if not compiled:
        return Finding("compile cache", "note", f"{folder} holds nothing: the first start takes minutes; warm it with python -m core.warm")
    if not os.access(folder, os.W_OK):
        return Finding("compile cache", "ok", f"{compiled} files in {folder} (read only: fine while the code does not change)")
    return Finding("compile cache", "ok", f"{compiled} files in {folder}")


def address(settings: Settings) -> Finding:
    """Who may reach the service has to say who he is."""
    try:
        settings.check()
    except ValueError as error:
        return Finding("address", "wrong", str(error))
    return Finding("address", "ok", f"{settings.host}: {'asks nobody for a token' if settings.open else 'asks for tokens'}")


def _answers(settings: Settings) -> str | None:
    """The version of the pagewalk that listens where this one would; None when nobody does, or somebody else."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    there = HTTPConnection(host, settings.port, timeout=ANSWER_S)
    try:
        there.request("GET", f"{settings.root_path or ''}/version")
        found = json.loads(there.getresponse().read(SHORT))
        return str(found["version"]) if found["name"] == "pagewalk" else None
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        there.close()


def port(settings: Settings) -> Finding:
    """Nobody else listens there."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            reasons = {
                errno.EADDRINUSE: "somebody listens there (another pagewalk?): choose another with --port",
                errno.EACCES: "only root may listen on ports below 1024: choose another with --port",
                errno.EADDRNOTAVAIL: "this machine has no such address: choose another with --host",
            }
            if error.errno == errno.EADDRINUSE and (running := _answers(settings)) is not None:
                says = f"pagewalk {running} listens there already, on this data or on other; a second one wants another --port"
                return Finding("port", "note", f"{settings.host} port {settings.port}: {says}")
            says = reasons.get(error.errno or 0, str(error))
            return Finding("port", "wrong", f"{settings.host} port {settings.port}: {says}")
    return Finding("port", "ok", f"{settings.host} port {settings.port} is free")


def data(settings: Settings) -> Finding:
    """Sessions can be kept."""
    folder = settings.data
    if folder is None:
        return Finding("data", "note", "sessions are in memory only and end with the process: --data DIR keeps them")
    home = _existing(folder)
    if not home.is_dir():
        return Finding("data", "wrong", f"{home} is a file: --data wants a folder")
    if not os.access(home, os.W_OK | os.X_OK):
        return Finding("data", "wrong", f"user {os.getuid()} may not write to {home}: chown it, or choose another with --data")
    if not folder.exists():
        return Finding("data", "ok", f"{folder} will be made")
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return Finding("data", "wrong", f"{folder} cannot be written: {error.strerror}")
    if stat.S_IMODE(folder.stat().st_mode) & 0o007:
        return Finding("data", "note", f"{folder} can be read by every user of this machine: chmod 750 {folder}")
    return Finding("data", "ok", f"{folder} can be written")


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def database(settings: Settings) -> Finding:
    """The database that a URL names can be reached."""
    url = getattr(settings, "database_url", None)
    if url is None:
        return Finding("database", "ok", "SQLite in the data folder" if settings.data else "none: nothing is kept")
    text = url.get_secret_value() if hasattr(url, "get_secret_value") else str(url)
    parts = urlsplit(text)
    if not parts.hostname:
        return Finding("database", "ok", f"{parts.scheme}, local")
    where = f"{parts.scheme.partition('+')[0]} at {parts.hostname} port {parts.port or 5432}"
    try:
        socket.create_connection((parts.hostname, parts.port or 5432), 5).close()
    except OSError as error:
        return Finding("database", "wrong", f"{where}: {error.strerror or error}: is it running, and may this machine reach it?")
    return Finding("database", "ok", f"{where} answers")


def journals(settings: Settings) -> Finding:
    """What is kept is sound, and of a version that this program knows."""
    url = settings.database_url
    if url == "memory:" or (settings.database is None and settings.data is not None and not (settings.data / "sessions.sqlite").exists()):
        return Finding("journals", "ok", "none yet")
    found = Database(url, migrate=False)
    try:
        with found.moment() as conn:
            have = versions_of(conn)
            for component in COMPONENTS:
                if (version := have.get(component.name, component.version)) != component.version:
                    says = f"the {component.name} are of version {version}, this program has {component.version}"
                    if version > component.version:
                        return Finding("journals", "wrong", f"{says}: use a newer one")
                    return Finding("journals", "note", f"{says}: they are brought up to date when it starts; make a backup before")
            health = health_of(conn)
    finally:
        found.close()
    says = f"{health.sessions} sessions, {health.operations} operations, {health.snapshots} snapshots"
    if health.wrong:
        return Finding("journals", "wrong", f"{says}; damaged: {'; '.join(health.wrong[:TOLD])}: restore a backup, or rewind what is frozen")
    if health.passed_over:
        return Finding("journals", "note", f"{says}; damaged snapshots, which are passed over: {'; '.join(health.passed_over[:TOLD])}")
    return Finding("journals", "ok", f"{says}: all sound")


def disk(settings: Settings) -> Finding:
    """There is room for the journal."""
    folder = _existing(settings.data or Path(tempfile.gettempdir()))
    free = shutil.disk_usage(folder).free
    if free < DISK_FULL:
        return Finding("disk", "wrong", f"{free >> 20} MiB free at {folder}: journals need room, at least {DISK_LOW >> 30} GiB is right")
    if free < DISK_LOW:
        return Finding("disk", "note", f"{free >> 20} MiB free at {folder}: a class fills that within days")
    return Finding("disk", "ok", f"{free >> 30} GiB free at {folder}")


def files(_: Settings) -> Finding:
    """Enough open files for a class with its event streams."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES_FEW:
        return Finding("open files", "note", f"{soft} at most, so about {soft * 3 // 4} connections: ulimit -n {min(hard, 65536)}")
    return Finding("open files", "ok", f"{soft} at most")


def clock(settings: Settings) -> Finding:
    """The machine's clock: times to live and leases hang on it."""
    now = time.time()
    newest = max((path.stat().st_mtime for path in Path(__file__).parent.glob("*.py")), default=0.0)
    if now < newest - 24 * 3600:
        return Finding("clock", "wrong", f"it is {time.strftime('%Y-%m-%d', time.gmtime(now))}, before this program was written: set it (NTP)")
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


CHECKS: Final[tuple[Callable[[Settings], Finding], ...]] = (
    python, packages, compile_cache, address, port, data, database, journals, disk, files, clock,
)  # fmt: skip
MARKS: Final[dict[Verdict, str]] = {"ok": "ok  ", "note": "note", "wrong": "WRONG"}


def examine(settings: Settings) -> list[Finding]:
    """Every check, in order; one that breaks has found something wrong."""
    found = []
    for check in CHECKS:
        try:
            found.append(check(settings))
        except Exception as error:
            found.append(Finding(check.__name__.replace("_", " "), "wrong", f"could not be checked: {type(error).__name__}: {error}"))
    return found


def show(findings: list[Finding]) -> str:
    """The findings as lines."""
    return "\n".join(f"{MARKS[found.verdict]:<5}  {found.what:<14} {found.says}" for found in findings)
