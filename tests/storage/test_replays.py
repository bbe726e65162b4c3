"""Any program's journal, stored in either database, replays to the same digest: after a restart, from its snapshots and from its boot, and in a
fresh process that knows nothing of the service."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from app.host.verify import replays
from app.schemas.calls import Op, render_op
from app.storage import catalogue, open_store
from app.storage.schema import snapshots
from core import Result
from tests.api.client import Client, running
from tests.pool.reference import replayed
from tests.properties.programs import NAMES, Program, Step

NUMBER = st.integers(0, (1 << 16) - 1)
PROGRAM = st.lists(st.tuples(st.sampled_from(NAMES), NUMBER, NUMBER, NUMBER, NUMBER), min_size=5, max_size=40)
MACHINE = {"memory": "64M", "swap": "16M"}


class Written(Program):
    """A program that writes down what it calls, as a batch takes it."""

    def __init__(self) -> None:
        from core import Kernel, Machine

        super().__init__(Kernel.boot(Machine.from_dict(MACHINE)))
        self.ops: list[dict[str, Any]] = []
        self.prepare()

    def call(self, op: str, pid: int | None = None, **args: Any) -> Result:
        answer = super().call(op, pid, **args)
        self.ops.append(render_op(Op(op, pid, {key: value for key, value in args.items() if value is not None})))
        return answer


def kept(url: str) -> Any:
    return running(database=url, durability="normal", instance="test", snapshot_every=16)


def programs(count: int) -> list[list[Step]]:
    """So many random programs."""
    found: list[list[Step]] = []

    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(PROGRAM)
    def draw(steps: list[Step]) -> None:
        found.append(steps)

    draw()
    return found


@pytest.mark.timeout(600)
def test_a_stored_journal_replays_to_the_same_digest(database_url):
    told = {}
    with kept(database_url) as service:
        for steps in programs(12):
            program = Written()
            for step in steps:
                program.step(*step)
            session = service.session(machine=MACHINE)
            for at in range(0, len(program.ops), 7):
                answer = session.post("/batch", {"ops": program.ops[at : at + 7]})
                assert answer.status_code == 200, answer.text
            told[session.id] = program.k.digest()
            assert service.inside(session.id).kernel.digest() == told[session.id]
        journals = {sid: [json.loads(line) for line in Client(service, {"id": sid}).get("/journal").text.splitlines()] for sid in told}
    stories = [{"machine": boot["machine"], "seed": boot["seed"], "ops": ops, "files": []} for boot, *ops in journals.values()]
    assert [one["digest"] for one in replayed(stories)] == list(told.values())
    with kept(database_url) as service:  # from the snapshots, and what came after them
        for sid, digest in told.items():
            assert Client(service, {"id": sid}).state()["differs"] is None
            assert service.inside(sid).kernel.digest() == digest
    store = open_store(database_url)
    assert [replays(store.database, record) for record in store.read(lambda conn: catalogue.page(conn, 99, None))] == [None] * len(told)
    store.write(lambda conn: conn.execute(delete(snapshots)))
    store.close()
    with kept(database_url) as service:  # from the boot
        for sid, digest in told.items():
            assert Client(service, {"id": sid}).state()["state"] in ("running", "panicked")
            assert service.inside(sid).kernel.digest() == digest
