"""A PostgreSQL server of the tests' own: its programs are the machine's, its data is in a temporary folder."""

import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

PLACES = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt/postgresql")
QUICK = ("fsync=off", "full_page_writes=off", "max_connections=60", "shared_buffers=16MB", "listen_addresses=")


def programs() -> Path | None:
    """The folder that holds initdb and postgres, None when there is none."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("postgres", path=str(Path(found).resolve().parent)):
        return Path(found).resolve().parent
    folders = sorted(folder for place in PLACES for folder in Path(place).glob("*/bin") if (folder / "initdb").exists())
    return folders[-1] if folders else None


def _as_other() -> list[str]:
    """PostgreSQL refuses to run as root: who it runs as then."""
    if os.getuid() != 0:
        return []
    user = next(name for name in ("postgres", "nobody") if _known(name))
    entry = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextmanager
def server(bin_folder: Path, *settings: str) -> Iterator[str]:
    """A running server; the URL of its database `postgres`."""
    prefix = _as_other()
    home = Path(tempfile.mkdtemp(prefix="pagewalk-pg-"))
    home.chmod(0o777)
    data = home / "data"
    options = [word for setting in (*QUICK, f"unix_socket_directories={home}", *settings) for word in ("-c", setting)]
    create = [*prefix, str(bin_folder / "initdb"), "-D", str(data), "-U", "pagewalk", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    subprocess.run(create, check=True, capture_output=True, cwd=home)
    control = [*prefix, str(bin_folder / "pg_ctl"), "-D", str(data)]
    subprocess.run([*control, "-w", "-l", str(home / "log"), "-o", shlex.join(options), "start"], check=True, cwd=home, stdout=subprocess.DEVNULL)
    try:
        yield f"postgresql://pagewalk@/postgres?host={home}"
    finally:
        subprocess.run([*control, "-w", "-m", "immediate", "stop"], check=True, cwd=home, stdout=subprocess.DEVNULL)
        shutil.rmtree(home, ignore_errors=True)


def emptied(url: str) -> str:
    """The database of a URL with nothing in it; the URL."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("CREATE SCHEMA public")
    return url
