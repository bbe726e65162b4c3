"""A service knows itself again after a crash, on whatever port, and takes the leases that it left; it takes none of a service that lives."""

import pytest

from app.host.instance import claim
from app.settings import Settings
from tests.pool.service import Workers


def test_a_name_lasts_from_one_start_to_the_next_and_two_services_have_two(tmp_path):
    settings = Settings(data=tmp_path)
    first, second = claim(settings), claim(settings)
    assert first.name != second.name and first.dead == second.dead == []
    second.leave()
    third = claim(settings)
    assert (third.name, third.dead) == (second.name, [second.name])
    for one in (first, third):
        one.leave()
    fourth, fifth = claim(settings), claim(settings)
    assert sorted(fourth.dead) == sorted([first.name, second.name]) and fourth.name in fourth.dead
    assert (fifth.name, fifth.dead) == (*{first.name, second.name} - {fourth.name}, [fifth.name])
    fourth.leave()
    fifth.leave()


def test_what_is_said_counts(tmp_path):
    assert claim(Settings(data=tmp_path, instance="mine")).name == "mine"
    assert claim(Settings(data=None, port=8000)).name.endswith(":8000")
    assert not (tmp_path / "instances").exists()


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "instances").write_text("a file")
    assert claim(Settings(data=tmp_path, port=8000)).name.endswith(":8000")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_that_was_killed_has_its_sessions_at_once_on_another_port(tmp_path, workers):
    environment = {"PAGEWALK_DATABASE": f"sqlite:///{tmp_path / 's.sqlite'}"}
    first = Workers("--data", str(tmp_path), workers=workers, environment=environment)
    try:
        sid = first.create()
        assert first.spawn(sid).status_code == 201
    finally:
        first.kill(everyone=True)
        first.http.close()
        first._folder.cleanup()
    second = Workers("--data", str(tmp_path), workers=workers, environment=environment)
    try:
        assert second.url != first.url
        answer = second.http.get(f"/v1/sessions/{sid}")
        assert answer.status_code == 200 and answer.json()["seq"] == 1, answer.text
        third = Workers("--data", str(tmp_path), workers=workers, environment=environment)
        try:  # the second lives, and keeps what it has
            assert third.http.get(f"/v1/sessions/{sid}").status_code == 503
            assert second.spawn(sid).json()["seq"] == 2
        finally:
            third.stop()
    finally:
        second.stop()
