"""`pagewalk backup` and `pagewalk restore`: a service's whole database in one file, while it runs, and back."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from app.host.verify import replays
from app.routes.health import release
from app.settings import Settings
from app.storage import Database, StorageError, catalogue
from app.storage import backup as house
from app.storage.backup import BackupError, Summary, Tell
from app.storage.identity import adopt

EVERY_S = 0.5


def backup(args: argparse.Namespace, settings: Settings) -> str:
    """Write the file; returns what to print. Raises ValueError, OSError in plain words."""
    database = _open(settings)
    try:
        with tempfile.NamedTemporaryFile(dir=args.file.absolute().parent, prefix=f".{args.file.name}.", delete=False) as out:
            try:
                found = house.backup(database, out, release(), progress())
                out.flush()
                os.fsync(out.fileno())
                _put(Path(out.name), args.file, args.force)
            except BaseException:
                Path(out.name).unlink(missing_ok=True)
                raise
    except (BackupError, StorageError) as error:
        raise ValueError(str(error)) from error
    finally:
        database.close()
    return f"{args.file}: {args.file.stat().st_size} bytes, {_told(found)}"


def _put(new: Path, target: Path, force: bool) -> None:
    """Give a file its name, which nothing has yet unless that is said."""
    if force:
        new.replace(target)
        return
    try:
        os.link(new, target)
    except FileExistsError:
        raise BackupError(f"{target} is there already: choose another name, or --force") from None
    new.unlink()


def restore(args: argparse.Namespace, settings: Settings) -> str:
    """Read the file into the database; returns what to print. Raises ValueError, OSError in plain words."""
    try:
        database = Database(settings.database_url, settings.durability)
        try:
            found = house.restore(database, args.file, args.force, progress())
            wrong = _replay_all(database) if args.replay else []
        finally:
            database.close()
    except (BackupError, StorageError) as error:
        raise ValueError(str(error)) from error
    if wrong:
        raise ValueError("; ".join(wrong[:10]))
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.created))
    verified = "every session played again to the same digest" if args.replay else "every row read again and compared"
    return f"restored {_told(found)}, as of {made}; {verified}"


def _replay_all(database: Database) -> list[str]:
    """What is wrong with sessions that are played again, each from its boot."""
    tell, wrong = progress(), []
    after: tuple[float, str] | None = None
    number = 0
    while part := database.read(lambda conn, after=after: catalogue.page(conn, 100, after)):  # type: ignore[misc]
        for record in part:
            if (what := replays(database, record)) is not None:
                wrong.append(f"{record.id}: {what}")
            tell("sessions played again", number := number + 1)
        after = part[-1].created, part[-1].id
    return wrong


def _open(settings: Settings) -> Database:
    """The service's database, which must be there."""
    if settings.database_url == "memory:":
        raise ValueError("where? give --data DIR (or PAGEWALK_DATA), or --database URL (or PAGEWALK_DATABASE)")
    if settings.database is None and settings.data is not None and not (path := settings.data / "sessions.sqlite").exists():
        raise ValueError(f"there is no database at {path}: where does the service keep its sessions? --data DIR or --database URL")
    try:
        database = Database(settings.database_url, settings.durability)
        if settings.data is not None:
            adopt(database, settings.data)
        return database
    except StorageError as error:
        raise ValueError(str(error)) from error


def _told(found: Summary) -> str:
    rows = found.rows
    kinds = {"sessions": "sessions", "journal": "operations", "snapshots": "snapshots", "tokens": "tokens"}
    return ", ".join(f"{rows.get(table, 0)} {name}" for table, name in kinds.items())


def progress() -> Tell:
    """Says on standard error how far it is, where somebody looks on."""
    begin = last = time.monotonic()

    def tell(what: str, rows: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY_S:
            last = now
            start, end = ("\r", "\033[K") if sys.stderr.isatty() else ("", "\n")
            sys.stderr.write(f"{start}{now - begin:6.1f} s  {what}: {rows}{end}")
            sys.stderr.flush()

    return tell
