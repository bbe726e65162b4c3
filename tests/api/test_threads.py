"""Threads for long work: in rotation of who they work for, slice by slice."""

import asyncio
import threading
import time
from functools import partial

import pytest

from app.errors import Problem
from app.host.turns import SLICE_S, Threads, Turn


@pytest.fixture
def threads():
    threads = Threads(1, 8, 2)
    yield threads
    threads.close()


async def until(condition):
    while not condition():  # noqa: ASYNC110 - nothing says so
        await asyncio.sleep(0)


def spin(threads, log, name, slices):
    """Work that looks up all the time and notes who had the slot."""

    def work():
        end = time.thread_time() + slices * SLICE_S
        while time.thread_time() < end:
            log.append(name)
            threads.breathe()

    return work


def test_short_work_goes_between_the_slices_of_long_work(threads):
    async def play():
        log = []
        long = [asyncio.create_task(threads.run(key, spin(threads, log, key, 30))) for key in ("a", "b")]
        await until(lambda: {"a", "b"} <= set(log))
        await threads.run("c", lambda: log.append("c"))
        await asyncio.gather(*long)
        return log

    log = asyncio.run(play())
    turns = [name for name, before in zip(log, [None, *log], strict=False) if name != before]
    assert len(log[: log.index("c")]) < len(log) / 2
    assert turns.count("a") > 5 and turns.count("b") > 5


def test_lines_are_served_in_rotation_however_long_they_are(threads):
    async def play():
        log = []
        begun, go = threading.Event(), threading.Event()

        def holds():
            begun.set()
            assert go.wait(60)

        first = asyncio.create_task(threads.run("z", holds))
        await until(begun.is_set)
        work = {"a": 5, "b": 1, "c": 1}
        others = [asyncio.create_task(threads.run(key, partial(log.append, key))) for key, times in work.items() for _ in range(times)]
        await until(lambda: {key: len(line) for key, line in threads.lines.items()} == work)
        order = list(threads.lines)
        go.set()
        await asyncio.gather(first, *others)
        assert sorted(log) == list("aaaaabc")
        assert log[:3] == order

    asyncio.run(play())


def test_a_thread_that_waits_for_something_else_lends_its_slot(threads):
    async def play():
        loop, released = asyncio.get_running_loop(), asyncio.Event()

        def asks():
            with threads.idle():
                asyncio.run_coroutine_threadsafe(released.wait(), loop).result(60)

        asking = asyncio.create_task(threads.run("a", asks))
        await threads.run("b", lambda: None)
        assert not asking.done()
        released.set()
        await asking

    asyncio.run(play())


def test_a_turn_goes_to_the_next_who_still_waits(threads):
    async def play():
        turn, got = Turn(threads, 2), []

        async def one(name):
            async with turn:
                got.append(name)

        await turn.take()
        tasks = [asyncio.create_task(one(name)) for name in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="as many as may"):
            await turn.take()
        tasks[0].cancel()
        await asyncio.sleep(0)
        assert turn.waiting == threads.waiting == 1
        turn.leave()
        await tasks[1]
        await turn.take()
        turn.leave()
        assert got == ["b"] and threads.waiting == 0

    asyncio.run(play())


def test_a_turn_that_is_handed_to_someone_who_leaves_at_that_moment_is_not_lost(threads):
    async def play():
        turn = Turn(threads, 2)
        await turn.take()
        task = asyncio.create_task(turn.take())
        await asyncio.sleep(0)
        turn.leave()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(turn.take(), 5)

    asyncio.run(play())
