"""What one worker makes of another that dies in the midst of handing something over."""

import asyncio
import contextlib
import logging

import pytest

from app.host.places import Places
from app.pool.relay import END, MESSAGE, READY, Relay
from app.pool.wire import Lost, Wire

SCOPE = {"type": "websocket", "path": "/v1/sessions/s_1/events", "headers": []}


class Talk:
    """An app that accepts a websocket and says one word each time it hears one."""

    def __init__(self):
        self.heard = []

    async def __call__(self, scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.heard.append(message["text"])
            await send({"type": "websocket.send", "text": "heard"})
            if message["text"] == "enough":
                return


@contextlib.asynccontextmanager
async def between(tmp_path, app):
    """A wire to a relay, as another worker has one."""

    async def stays(sid):
        return None

    relay = Relay(app, Places(tmp_path, "w0", ["w0", "w1"]), lambda sid: True, stays, dict, 1 << 20, "")
    await relay.listen()
    wire = Wire(*await asyncio.open_unix_connection(str(tmp_path / "w0.sock")))
    try:
        yield relay, wire
    finally:
        wire.close()
        await relay.close()


async def idle(relay):
    """Until nothing is served any more."""
    async with asyncio.timeout(20):
        while relay._serving:  # noqa: ASYNC110 - nothing says so
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def silence(caplog):
    """Nothing of this is an error of ours."""
    yield
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


def test_a_worker_that_dies_before_its_client_was_announced(tmp_path):
    async def play():
        app = Talk()
        async with between(tmp_path, app) as (relay, wire):
            await wire.send((SCOPE, None))
            assert await wire.receive() == (READY,)
            wire.close()
            await idle(relay)
        assert app.heard == []

    asyncio.run(play())


def test_a_worker_that_dies_while_its_client_listens(tmp_path):
    async def play():
        app = Talk()
        async with between(tmp_path, app) as (relay, wire):
            await wire.send((SCOPE, None))
            await wire.send({"type": "websocket.connect"})
            assert [(await wire.receive())[0] for _ in range(2)] == [READY, MESSAGE]
            for _ in range(100):
                await wire.send({"type": "websocket.receive", "text": "more" * 1000})
            wire.close()
            await idle(relay)
        assert app.heard

    asyncio.run(play())


def test_a_client_that_speaks_on_after_the_end(tmp_path):
    """What it says is no request: the connection ends with its websocket."""

    async def play():
        app = Talk()
        async with between(tmp_path, app) as (relay, wire):
            await wire.send((SCOPE, None))
            for message in ({"type": "websocket.connect"}, {"type": "websocket.receive", "text": "enough"}):
                await wire.send(message)
            with contextlib.suppress(Lost):
                for number in range(3):
                    await wire.send({"type": "websocket.receive", "text": f"late {number}"})
            found = []
            with pytest.raises(Lost):
                while True:
                    found.append((await wire.receive())[0])
            await idle(relay)
        assert (found, app.heard) == ([READY, MESSAGE, MESSAGE, END], ["enough"])

    asyncio.run(play())
