"""The command `pagewalk`: serve, demo, run, replay, doctor, token, backup, restore, version."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.settings import Settings
    from app.storage import SqlStore

OK, FAILED, USAGE, REFUSED = 0, 1, 2, 3

EPILOG = """\
exit codes:
  0  done: everything asked for was carried out, demo checked everything that it claims, serve was ended by SIGTERM
  1  failed: an operation could not be carried out, a claim of the demo did not hold, the address is taken
  2  usage: an unknown option, a file that cannot be read as operations, a bad setting
  3  refused: serve on an address that others can reach, without authentication
130  interrupted

environment: every setting is PAGEWALK_<NAME> (PAGEWALK_HOST, PAGEWALK_PORT, PAGEWALK_DATA, PAGEWALK_TOKEN, ...);
flags win.
"""

TOKEN_EPILOG = """\
the first administrator, before or while the service runs:
  pagewalk token issue root --role admin

a teacher, who issues the tokens of the course's students; then all tokens, and the end of one:
  pagewalk token issue ada --role instructor --course os101 --expires 4320h
  pagewalk token list
  pagewalk token revoke t_Xa3...

The token is printed once and kept as a hash. A service that runs notices a change within a second. What who may do: docs/security.md.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="pagewalk",
        description="A Linux memory-management kernel you can curl.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="store_true", help="print the version and leave")
    commands = top.add_subparsers(dest="command", metavar="{serve,demo,run,replay,doctor,token,backup,restore,version}")
    _serve_options(commands.add_parser("serve", help="start the service", allow_abbrev=False))
    _demo_options(commands.add_parser("demo", help="a story from the first touch to the OOM kill", allow_abbrev=False))
    _run_options(commands.add_parser("run", help="play operations or a scenario on a fresh kernel", allow_abbrev=False))
    _replay_options(commands.add_parser("replay", help="compare page-replacement policies on one trace", allow_abbrev=False))
    _doctor_options(commands.add_parser("doctor", help="say whether this machine can serve, and what would be right", allow_abbrev=False))
    _token_options(commands.add_parser("token", help="issue, list or revoke tokens", allow_abbrev=False))
    _backup_options(commands.add_parser("backup", help="write all that the service keeps to one file, while it runs", allow_abbrev=False))
    _restore_options(commands.add_parser("restore", help="read such a file into a database", allow_abbrev=False))
    commands.add_parser("version", help="print the version", allow_abbrev=False)
    return top


def _serve_options(sub: argparse.ArgumentParser) -> None:
    sub.description = "Start the service. Prints `pagewalk ready on http://HOST:PORT` once it takes requests."
    _place_options(sub)
    sub.add_argument("--workers", type=_workers, metavar="N", help="worker processes (default 1)")
    sub.add_argument(
        "--allow-anyone",
        action="store_true",
        help="listen without authentication even where other machines can connect",
    )


def _place_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    sub.add_argument("--port", type=_port, help="port to listen on (default 8000; 0 takes a free one)")
    sub.add_argument("--data", type=Path, metavar="DIR", help="where sessions are kept (default: ~/.local/share/pagewalk)")


def _doctor_options(sub: argparse.ArgumentParser) -> None:
    sub.description = "Check the machine for a service with these settings: exit code 1 when something would keep it from working."
    _place_options(sub)
    sub.add_argument("--json", action="store_true", help="the findings as a JSON list")


def _demo_options(sub: argparse.ArgumentParser) -> None:
    sub.description = "Start a service of its own on a free loopback port and walk through a story, checking every claim."
    sub.add_argument("--url", help="use a running service instead")
    sub.add_argument("--token", help="bearer token for --url")
    sub.add_argument("--stay", action="store_true", help="keep the session at the end, to try the curl lines, until Ctrl-C")


def _run_options(sub: argparse.ArgumentParser) -> None:
    sub.description = "Play FILE on a fresh kernel: operations as JSON Lines of the batch union, or a .scn scenario."
    sub.add_argument("file", type=Path, metavar="FILE", help="operations (.jsonl) or a scenario (.scn); - is standard input")
    sub.add_argument("--url", help="on a running service instead of in process")
    sub.add_argument("--token", help="bearer token for --url")
    sub.add_argument("--machine", type=_machine, metavar="JSON", help="""the machine, e.g. '{"memory": "512M"}'""")
    sub.add_argument("--seed", type=int, help="the machine's seed (default 0)")
    sub.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")


def _replay_options(sub: argparse.ArgumentParser) -> None:
    sub.description = "Replay a trace through policies and sizes of memory: faults, hit ratios, and where more memory made more faults."
    sub.add_argument("trace", nargs="*", metavar="PAGE", help="page numbers, or a FILE of them; - is standard input")
    sub.add_argument("--generate", metavar="PATTERN", help="make the trace up: sequential, loop, random, zipf, hot-cold, working-set")
    sub.add_argument("--pages", type=int, default=1000, help="different pages of --generate (default 1000)")
    sub.add_argument("--length", type=int, default=100_000, help="accesses of --generate (default 100000)")
    sub.add_argument("--skew", type=float, default=1.0, help="of zipf (default 1.0)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--policies", default="fifo,clock,lru,opt", help="comma-separated (default fifo,clock,lru,opt); all for all")
    sub.add_argument("--frames", help="sizes of memory: 3,4 or 1-8 (default: sixteen up to the number of pages)")
    sub.add_argument("--svg", type=Path, metavar="FILE", help="write a plot of faults against memory")
    sub.add_argument("--json", action="store_true", help="the columns as JSON")


def _token_options(sub: argparse.ArgumentParser) -> None:
    sub.description = "Issue, list or revoke tokens: in the service's database, running or not, or over HTTP (--url)."
    sub.formatter_class = argparse.RawDescriptionHelpFormatter
    sub.epilog = TOKEN_EPILOG
    sub.add_argument("action", choices=("issue", "list", "revoke"))
    sub.add_argument("name", nargs="?", help="issue: whose token it is; revoke: the token's id")
    sub.add_argument("--role", choices=("admin", "instructor", "grader", "student"), help="what the subject becomes")
    sub.add_argument("--course", help="in which course; all that the token is good for")
    sub.add_argument("--label", help="what the token is for")
    sub.add_argument("--expires", help="from now, e.g. 2160h (default: never)")
    sub.add_argument("--data", type=Path, metavar="DIR", help="the service's data folder (default: PAGEWALK_DATA, or ~/.local/share/pagewalk)")
    sub.add_argument("--database", metavar="URL", help="the service's database, where it has one (default: PAGEWALK_DATABASE)")
    sub.add_argument("--url", help="a running service instead")
    sub.add_argument("--token", help="bearer token for --url")


BACKUP_EPILOG = """\
every night, beside the service (the file is one moment of the database, whole or not there):
  pagewalk backup /backups/pagewalk-$(date +%F).pwb

to another machine, or from SQLite to PostgreSQL:
  pagewalk restore pagewalk-2026-11-30.pwb --database postgresql://pagewalk@db/pagewalk --replay
"""


def _backup_options(sub: argparse.ArgumentParser) -> None:
    sub.description = "Write sessions, tokens (their hashes), courses and members to FILE: one moment of the database, while the service runs."
    sub.formatter_class, sub.epilog = argparse.RawDescriptionHelpFormatter, BACKUP_EPILOG
    sub.add_argument("file", type=Path, metavar="FILE", help="the file to write, readable by its owner only")
    sub.add_argument("--force", action="store_true", help="write over a file that is there")
    _database_options(sub)


def _restore_options(sub: argparse.ArgumentParser) -> None:
    sub.description = "Read a backup into an empty database, SQLite or PostgreSQL, whichever it was made of: all of it or nothing."
    sub.formatter_class, sub.epilog = argparse.RawDescriptionHelpFormatter, BACKUP_EPILOG
    sub.add_argument("file", type=Path, metavar="FILE", help="what `pagewalk backup` wrote")
    sub.add_argument("--force", action="store_true", help="throw away what the database holds; not while a service uses it")
    sub.add_argument("--replay", action="store_true", help="then play every session again from its boot and compare the digests")
    _database_options(sub)


def _database_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", type=Path, metavar="DIR", help="the service's data folder (default: PAGEWALK_DATA, or ~/.local/share/pagewalk)")
    sub.add_argument("--database", metavar="URL", help="the service's database, where it has one (default: PAGEWALK_DATABASE)")


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 0 to 65535")
    return port


def _workers(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 256):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers; give 1 to 256")
    return int(text)


def _machine(text: str) -> dict[str, Any]:
    try:
        machine = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(machine, dict):
        raise argparse.ArgumentTypeError('a machine is a JSON object, e.g. {"memory": "512M", "swap": "256M"}')
    return machine


# ---- serve -----------------------------------------------------------------------------------------------------


def settings_of(args: argparse.Namespace) -> Settings:
    """The environment's settings with the flags put over them. Raises ValueError in plain words."""
    from pydantic import ValidationError

    from app.settings import Settings

    flags = {name: getattr(args, name) for name in ("host", "port", "data", "database", "workers") if getattr(args, name, None) is not None}
    if getattr(args, "allow_anyone", False):
        flags["allow_anyone"] = True
    try:
        settings = Settings(**flags)
        if settings.data is None and settings.database is None:
            settings = settings.model_copy(update={"data": default_data()})
        return settings
    except ValidationError as error:
        wrong = (f"PAGEWALK_{'_'.join(map(str, row['loc'])).upper()}: {row['msg']}" for row in error.errors())
        raise ValueError("; ".join(wrong)) from error


def default_data() -> Path:
    """The folder that sessions are kept in when nobody says otherwise."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pagewalk"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(2048)
    except OSError:
        found.close()
        raise
    return found


def url_of(host: str, port: int) -> str:
    """The address to give to a browser."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _leave(*_: object) -> None:
    raise SystemExit(OK)


def serve(args: argparse.Namespace) -> int:
    """Start the service and stay until a signal."""
    signal.signal(signal.SIGTERM, _leave)  # the server drains first, then raises it again: an orderly end
    try:
        settings = settings_of(args)
    except ValueError as error:
        return _complain(str(error), USAGE)
    if settings.otel:
        from app import telemetry

        try:
            telemetry.require()
        except ValueError as error:
            return _complain(str(error), USAGE)
    try:
        settings.check()
    except ValueError as error:
        return _complain(str(error), REFUSED)
    try:
        found = listen(settings.host, settings.port)
    except OSError as error:
        return _complain(f"cannot listen on {settings.host} port {settings.port}: {error.strerror or error}", FAILED)
    port = found.getsockname()[1]
    if settings.open and not settings.loopback:
        warning = f"anyone who reaches {settings.host} port {port} may use this service: create, read, change and delete every session"
        print(f"pagewalk: WARNING: {warning}", file=sys.stderr)
    return _serve_on(found, settings, url_of(args.host or settings.host, port))


def _serve_on(listener: socket.socket, settings: Settings, url: str) -> int:
    from app import logs
    from app.main import Server, config, create_app, settle_in

    logs.configure(settings.log_level, settings.log_format)
    if settings.workers > 1:
        return _serve_with_workers(listener, settings, url)

    class Announced(Server):
        """A server that says when it is ready."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started and not self.should_exit:
                print(f"pagewalk ready on {url}", flush=True)

    app = create_app(settings)
    found = Announced(config(settings, app), app.state.registry)
    settle_in()
    found.run(sockets=[listener])
    return OK if found.started else FAILED


def _serve_with_workers(listener: socket.socket, settings: Settings, url: str) -> int:
    from app.pool.supervisor import Supervisor

    def announce() -> None:
        print(f"pagewalk ready on {url}", flush=True)

    with shared_database(settings) as (shared, bury):
        return OK if Supervisor(shared, listener, announce, bury).run() else FAILED


@contextlib.contextmanager
def shared_database(settings: Settings) -> Iterator[tuple[Settings, Callable[[str], None]]]:
    """Settings with a database that several workers share, and what takes the leases of one that died."""
    from app.host.instance import claim
    from app.storage import open_store

    with tempfile.TemporaryDirectory(prefix="pagewalk-") as folder:
        url, temporary = settings.database_url, {}
        if url == "memory:":
            url, temporary = f"sqlite:///{folder}/sessions.sqlite", {"durability": "normal"}
        store, instance = open_store(url, settings.durability), claim(settings)
        name = instance.name
        try:
            for dead in instance.dead:
                store.void(dead)
            yield settings.model_copy(update={"database": url, "instance": name, **temporary}), lambda life: _bury(store, f"{name}/{life}")
        finally:
            store.close()
            instance.leave()


def _bury(store: SqlStore, holder: str) -> None:
    store.void(holder)


def _complain(message: str, code: int) -> int:
    print(f"pagewalk: {message}", file=sys.stderr)
    return code


# ---- the others ------------------------------------------------------------------------------------------------


def demo(args: argparse.Namespace) -> int:
    """Play the story."""
    from app import demo as story

    return story.main(args.url, args.token, args.stay)


def run(args: argparse.Namespace) -> int:
    """Play a file."""
    from app import run as runner
    from app.scenario import ScenarioError
    from app.target import Refused
    from pagewalk import Unreachable

    try:
        program = runner.load(args.file, args.machine, args.seed)
        target = runner.open_target(program, args.url, args.token)
    except (runner.FileError, Refused) as error:
        return _complain(str(error), USAGE)
    except Unreachable as error:
        return _complain(str(error), FAILED)
    try:
        refused = runner.run(program, target, args.json, sys.stdout, sys.stderr)
    except (ScenarioError, Refused, Unreachable) as error:
        return _complain(str(error), FAILED)
    finally:
        target.close()
    return FAILED if refused else OK


def version() -> str:
    """`pagewalk 0.1.0 (Python 3.11.9)`."""
    try:
        number = importlib.metadata.version("pagewalk")
    except importlib.metadata.PackageNotFoundError:
        number = "from source"
    return f"pagewalk {number} (Python {platform.python_version()})"


def doctor(args: argparse.Namespace) -> int:
    """Examine the machine."""
    from dataclasses import asdict

    from app import doctor as house

    try:
        findings = house.examine(settings_of(args))
    except ValueError as error:
        return _complain(str(error), USAGE)
    print(json.dumps([asdict(found) for found in findings]) if args.json else house.show(findings))
    return FAILED if any(found.verdict == "wrong" for found in findings) else OK


def token(args: argparse.Namespace) -> int:
    """Issue, list or revoke tokens."""
    import httpx2

    from app.token import main as tokens

    try:
        print(tokens(args, settings_of(args)))
    except ValueError as error:
        return _complain(str(error), USAGE)
    except httpx2.HTTPError as error:
        return _complain(f"{args.url}: {error}", FAILED)
    return OK


def keep(args: argparse.Namespace) -> int:
    """Back up, or restore."""
    from app import keep as house

    try:
        print((house.backup if args.command == "backup" else house.restore)(args, settings_of(args)))
    except ValueError as error:
        return _complain(str(error), FAILED)
    except OSError as error:
        return _complain(f"{error.filename or args.file}: {error.strerror or error}", FAILED)
    return OK


# ---- replay ----------------------------------------------------------------------------------------------------


def replay(args: argparse.Namespace) -> int:
    """Compare policies on one trace."""
    from app.compare import main as compare

    try:
        print(compare(args))
    except (OSError, ValueError) as error:
        print(f"pagewalk replay: {error}", file=sys.stderr)
        return USAGE
    return OK


COMMANDS = {"serve": serve, "demo": demo, "run": run, "replay": replay, "doctor": doctor, "token": token, "backup": keep, "restore": keep}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    top = parser()
    args = top.parse_args(argv)
    if args.version or args.command == "version":
        print(version())
        return OK
    if args.command is None:
        top.print_help()
        return USAGE
    try:
        return COMMANDS[args.command](args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader left, as with `| head`
        return OK


if __name__ == "__main__":
    sys.exit(main())
