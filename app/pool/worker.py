"""One worker process: the whole service, behind the port that all of them share."""

import os
import socket
import sys
import threading
from functools import partial
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from app import logs
from app.host.places import Places
from app.main import Server, config, create_app, settle_in
from app.pool.relay import Relay
from app.routes.health import local_snapshot
from app.settings import Settings

WORKERS_END = 70  # exit code of a worker whose supervisor is gone


class WorkerServer(Server):
    """A server that takes what other workers hand over, too, and tells its supervisor when it is ready."""

    relay: Relay
    ready: Connection

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the supervisor."""
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self.ready.send(True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Clients first; what others handed over ends with its streams."""
        await super().shutdown(sockets)
        await self.relay.close()


def run(settings: Settings, folder: Path, seat: str, seats: list[str], life: str, listener: socket.socket, ready: Connection) -> None:
    """Serve until a signal; the process's whole life."""
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    logs.configure(settings.log_level, settings.log_format)
    places = Places(folder, seat, seats)
    places.occupy(life)
    app = create_app(settings)
    registry = app.state.registry
    registry.join(life, places)
    count = partial(local_snapshot, registry)
    relay = Relay(app, places, registry.here, registry.settle, count, settings.max_body, settings.root_path or "")
    app.state.gather = relay.gather
    server = WorkerServer(config(settings, relay), registry)
    server.relay, server.ready = relay, ready
    settle_in()
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(1)


def _end_with_supervisor() -> None:
    """Nobody would start this worker again, and the port must be free for the next service."""
    supervisor = parent_process()
    assert supervisor is not None
    connection.wait([supervisor.sentinel])
    os._exit(WORKERS_END)
