"""Who has a session is known by arithmetic; who lives, by a lock that ends with the process."""

import multiprocessing
from collections import Counter

from app.host.places import Places, ranking

SEATS = [f"w{number}" for number in range(4)]


def test_ids_are_spread_evenly_and_move_only_when_their_seat_goes():
    ids = [f"s_{number}" for number in range(4000)]
    first = {sid: ranking(sid, SEATS)[0] for sid in ids}
    assert all(800 < count < 1200 for count in Counter(first.values()).values())
    fewer = {sid: ranking(sid, SEATS[:3])[0] for sid in ids}
    assert all(fewer[sid] == first[sid] for sid in ids if first[sid] != "w3")


def test_what_was_learned_is_asked_first(tmp_path):
    places = Places(tmp_path, "w0", SEATS)
    ranked = places.candidates("s_1")
    assert sorted(ranked) == SEATS
    places.remember("s_1", ranked[2])
    assert places.candidates("s_1") == [ranked[2], ranked[0], ranked[1], ranked[3]]
    places.forget("s_1")
    assert places.candidates("s_1") == ranked


def live(folder, pipe):
    Places(folder, "w0", SEATS).occupy("w0-1")
    pipe.send(True)
    pipe.recv()


def test_a_process_is_dead_when_its_lock_is_free(tmp_path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=live, args=(tmp_path, theirs))
    process.start()
    ours.recv()
    places = Places(tmp_path, "w1", SEATS)
    assert not places.is_dead("w0-1")
    process.kill()
    process.join()
    assert places.is_dead("w0-1")
    assert not places.is_dead("w7-9"), "what was never here may live elsewhere"
    ours.close()
