"""Threads for long work: in rotation of who they work for, slice by slice."""

import asyncio
import contextvars
import threading
import time
from functools import partial

import pytest

from app.errors import Problem
from app.host.turns import SLICE_S, Calls, Threads, Turn


@pytest.fixture
def threads():
    threads = Threads(1, 8, 2)
    yield threads
    threads.close()


@pytest.fixture
def roomy():
    threads = Threads(1, 8, 8)
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


def test_who_leaves_a_turn_does_the_short_work_of_those_in_line(roomy):
    """A line of short work is gone before anyone else can come; each piece of it is done in its own context, and an error is its own."""
    mine = contextvars.ContextVar("mine", default="nobody")

    async def play():
        calls, got = Calls(Turn(roomy, 8)), []

        def work(name):
            got.append((name, mine.get()))
            if name == "b":
                raise ValueError(name)
            return name

        async def one(name):
            mine.set(name)
            return await calls.begin("touch", 1, 1).do(lambda: work(name))

        await calls.turn.take()
        tasks = {name: asyncio.create_task(one(name)) for name in "abcd"}
        await asyncio.sleep(0)
        assert [call.document()["state"] for call in calls.under_way.values()] == ["queued"] * 4
        tasks["c"].cancel()
        await asyncio.sleep(0)
        calls.turn.leave()
        assert got == [("a", "a"), ("b", "b"), ("d", "d")]
        assert calls.turn.free and roomy.waiting == 0 + 3  # they have not heard of it yet
        assert [await tasks["a"], await tasks["d"]] == ["a", "d"]
        with pytest.raises(ValueError, match="b"):
            await tasks["b"]
        assert not calls.under_way and roomy.waiting == 0

    asyncio.run(play())


def test_short_work_does_not_overtake_who_waits_for_the_turn(roomy):
    async def play():
        calls, got = Calls(Turn(roomy, 8)), []

        async def takes():
            async with calls.turn:
                got.append("turn")
                await asyncio.sleep(0)

        await calls.turn.take()
        before = asyncio.create_task(calls.begin("touch", 1, 1).do(lambda: got.append("before")))
        await asyncio.sleep(0)
        holder = asyncio.create_task(takes())
        await asyncio.sleep(0)
        after = asyncio.create_task(calls.begin("touch", 1, 1).do(lambda: got.append("after")))
        await asyncio.sleep(0)
        calls.turn.leave()
        await asyncio.gather(before, holder, after)
        assert got == ["before", "turn", "after"] and calls.turn.free

    asyncio.run(play())


def test_short_work_that_waits_can_be_cancelled(threads):
    async def play():
        calls, got = Calls(Turn(threads, 8)), []
        await calls.turn.take()
        call = calls.begin("touch", 1, 1)
        task = asyncio.create_task(call.do(lambda: got.append("never")))
        await asyncio.sleep(0)
        assert await call.cancel()
        with pytest.raises(Problem, match="nothing of it has happened"):
            await task
        calls.turn.leave()
        assert got == [] and calls.turn.free

    asyncio.run(play())
