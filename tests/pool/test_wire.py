"""Frames between workers: whole, in order, also when a reader gives up in the midst of one."""

import asyncio

import pytest

from app.pool.wire import Lost, Wire


def test_a_reader_that_is_cancelled_in_the_midst_of_a_frame_loses_nothing(tmp_path):
    async def play():
        got = asyncio.get_running_loop().create_future()
        server = await asyncio.start_unix_server(lambda reader, writer: got.set_result((reader, writer)), tmp_path / "a")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
        theirs = Wire(*await got)
        frame = (5).to_bytes(4, "big") + b"i\x07\x00\x00\x00"
        for byte in frame[:-1]:
            writer.write(bytes([byte]))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await theirs.receive()
        writer.write(frame[-1:])
        assert await theirs.receive() == 7
        await theirs.send({"headers": [(b"a", b"b")], "body": None})
        assert await Wire(reader, writer).receive() == {"headers": [(b"a", b"b")], "body": None}
        writer.close()
        with pytest.raises(Lost):
            await theirs.receive()
        assert theirs.dead
        with pytest.raises(Lost):
            for _ in range(3):
                await theirs.send(b"x" * (1 << 20))
        theirs.close()
        server.close()

    asyncio.run(play())
