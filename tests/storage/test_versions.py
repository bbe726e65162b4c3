"""Yesterday's sessions open: a database of the first version of the schema, and journals that another version of the simulator wrote."""

import json
from pathlib import Path

import zstandard
from sqlalchemy import delete, update

from app.storage import open_store
from app.storage.check import health, versions_of
from app.storage.schema import COMPONENTS, journal, snapshots
from tests.api.client import PAGE, Client, problem, running
from tests.api.test_time_travel import seen, story

OLD = Path(__file__).parent / "old"


def kept(url, **more):
    return running(**{"database": url, "durability": "normal", "instance": "test", **more})


def test_a_database_of_the_first_version_opens(tmp_path):
    """Recorded with the program as it was then: a session with a snapshot, its clone, and one that was rewound."""
    path = tmp_path / "s.sqlite"
    path.write_bytes(zstandard.ZstdDecompressor().decompress((OLD / "sessions-1.sqlite.zst").read_bytes()))
    told = json.loads((OLD / "sessions-1.json").read_text())
    url = f"sqlite:///{path}"
    with kept(url) as service:
        for then in told.values():
            session = Client(service, {"id": then["id"]})
            state = session.state()
            assert session.get("/journal").text == then["journal"]
            if state["differs"] is None:
                assert session.get("/fs/proc/meminfo").text == then["meminfo"]
                assert state == then["state"] | {"differs": None}
            assert session.spawn("today") > 0
            assert session.state()["seq"] == then["state"]["seq"] + 1
        session = Client(service, {"id": told["a"]["id"]})
        assert session.post("/rewind", {"snapshot": "told"}).status_code == 200
    store = open_store(url)
    assert store.read(versions_of) == {one.name: one.version for one in COMPONENTS}
    assert store.read(health).wrong == []
    store.close()


def test_a_journal_of_another_version_of_the_simulator_says_where_it_differs(tmp_path):
    """Its clock after operation 3 was another one: then it was another program that carried it out."""
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    with kept(url) as service:
        session = service.session(seed=3)
        story(session)
        before, clock = seen(session), json.loads(session.get("/clock").text)["clock_ns"]
        assert session.state()["differs"] is None
    store = open_store(url)
    store.write(lambda conn: conn.execute(delete(snapshots)))
    store.write(lambda conn: conn.execute(update(journal).where(journal.c.seq >= 3).values(clock_ns=journal.c.clock_ns + 7)))
    store.close()
    with kept(url) as service:
        session = Client(service, session.record)
        state = session.state()
        assert state["differs"]["seq"] == 3 and state["differs"]["clock_ns"]["was"] == state["differs"]["clock_ns"]["is"] + 7
        assert (state["state"], state["clock_ns"]) == ("running", clock)
        assert seen(session) == before
        assert "pagewalk_sessions_differing_total 1.0" in service.http.get("/metrics").text
    with kept(url) as service:  # it is kept, a snapshot is there now
        session = Client(service, session.record)
        assert session.state()["differs"]["seq"] == 3
        assert session.post("/rewind", {"seq": 2}).json()["differs"] is None
        assert session.state()["differs"] is None


def test_a_named_state_that_played_again_is_another_is_not_gone_back_to_silently(tmp_path):
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    with kept(url) as service:
        session = service.session(seed=3)
        pid = session.spawn()
        session.post("/snapshots", {"name": "one"})
        session.mmap(pid, PAGE)
    store = open_store(url)
    store.write(lambda conn: conn.execute(delete(snapshots)))
    store.write(lambda conn: conn.execute(update(journal).where(journal.c.seq == 1).values(last_event=journal.c.last_event + 1)))
    store.close()
    with kept(url) as service:
        session = Client(service, session.record)
        assert session.post("/rewind", {"snapshot": "one"}).json()["differs"]["seq"] == 1
        problem(session.get("/at/9/fs/proc/meminfo"), 422)
