"""The file tree: cat, echo, mkdir, rmdir, ls over HTTP; ranges; the files of the disk."""

import struct

import pytest

from tests.api.client import PAGE, problem

CGROUP = "/sys/fs/cgroup"


def mkdir(session, path):
    return session.request("MKCOL", f"/fs{path}")


def test_cat(session):
    answer = session.get("/fs/proc/meminfo")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["etag"] == '"1.0"'
    assert answer.text.startswith("MemTotal:")
    head = session.request("HEAD", "/fs/proc/meminfo")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(answer.content)), b"")


def test_echo(session):
    assert session.put("/proc/sys/vm/swappiness", "10").status_code == 204
    assert session.get("/fs/proc/sys/vm/swappiness").text == "10\n"
    assert session.put("/proc/sys/vm/swappiness", "20\n", headers={"content-type": "text/plain"}).headers["etag"] == '"1.2"'
    assert session.get("/fs/proc/sys/vm/swappiness").text == "20\n"


def test_ls(session):
    names = session.get("/fs/proc").text.splitlines()
    assert "meminfo" in names and "sys" in names
    assert {"proc", "sys"} <= set(session.get("/fs/").text.splitlines())


@pytest.mark.parametrize(
    ("path", "value", "status", "errno"),
    [
        ("/proc/sys/vm/swappiness", "lots", 422, "EINVAL"),
        ("/proc/sys/vm/nothing", "1", 404, "ENOENT"),
        ("/nothing", "1", 404, "ENOENT"),
        ("/proc/meminfo", "1", 403, "EACCES"),
        ("/sys/fs/cgroup/app/memory.max", "50Q", 422, "EINVAL"),
        ("/sys/fs/cgroup/app/memory.current", "1", 403, "EACCES"),
        ("/sys/fs/cgroup/none/memory.max", "50M", 404, "ENOENT"),
        ("/proc", "1", 409, "EISDIR"),
    ],
)
def test_echo_that_the_kernel_refuses(session, path, value, status, errno):
    session.put(f"{CGROUP}/cgroup.subtree_control", "+memory")
    assert mkdir(session, f"{CGROUP}/app").status_code == 201
    assert problem(session.put(path, value), status)["errno"] == errno


@pytest.mark.parametrize(
    "path", ["/nothing", "/proc/99999/status", "/proc/meminfo/x", "/proc/../proc/nothing", "/%00", "/proc/%ff", "/" + "a" * 5000]
)
def test_what_is_not_there(session, path):
    assert problem(session.get(f"/fs{path}"), 404)["errno"] in ("ENOENT", "ENOTDIR", "ESRCH")


def test_mkdir_and_rmdir_of_cgroups(session):
    session.put(f"{CGROUP}/cgroup.subtree_control", "+memory")
    made = mkdir(session, f"{CGROUP}/app")
    assert (made.status_code, made.headers["location"]) == (201, f"{session.path}/fs{CGROUP}/app")
    assert problem(mkdir(session, f"{CGROUP}/app"), 405)["errno"] == "EEXIST"
    assert problem(mkdir(session, f"{CGROUP}/no/app"), 409)["errno"] == "ENOENT"
    problem(session.request("MKCOL", f"/fs{CGROUP}/b", content=b"x"), 415)
    assert session.get(f"/fs{CGROUP}/app/memory.max").text == "max\n"
    pid = session.spawn(cgroup="/app")
    assert problem(session.request("DELETE", f"/fs{CGROUP}/app"), 409)["errno"] == "EBUSY"
    session.call(pid, "kill", signal="SIGKILL")
    assert session.request("DELETE", f"/fs{CGROUP}/app").status_code == 204
    assert session.get(f"/fs{CGROUP}/app/memory.max").status_code == 404
    assert problem(session.request("DELETE", f"/fs{CGROUP}/app"), 404)["errno"] == "ENOENT"


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-3", 0, 3), ("bytes=4-", 4, None), ("bytes=-5", -5, None), ("bytes=0-999999999999999999", 0, None)],
)
def test_ranges_of_a_text(session, header, first, last):
    whole = session.get("/fs/proc/meminfo").content
    answer = session.get("/fs/proc/meminfo", headers={"Range": header})
    part = whole[first : None if last is None else last + 1]
    start = first % len(whole)
    assert answer.status_code == 206
    assert answer.content == part
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{len(whole)}"


@pytest.mark.parametrize("header", ["bytes=5-3", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "x", "bytes=a-b"])
def test_ranges_that_are_ignored(session, header):
    assert session.get("/fs/proc/meminfo", headers={"Range": header}).status_code == 200


@pytest.mark.parametrize("header", ["bytes=99999999-", "bytes=-0", "bytes=999999-9999999"])
def test_ranges_behind_the_end(session, header):
    answer = session.get("/fs/proc/meminfo", headers={"Range": header})
    problem(answer, 416)
    assert answer.headers["content-range"].startswith("bytes */")


def test_pagemap_is_read_in_parts(session):
    pid = session.spawn()
    address = session.mmap(pid, 8 * PAGE)
    session.touch(pid, address, 4 * PAGE)
    path, first = f"/fs/proc/{pid}/pagemap", int(address, 16) // PAGE * 8
    answer = session.get(path, headers={"Range": f"bytes={first}-{first + 63}"})
    assert (answer.status_code, answer.headers["content-type"]) == (206, "application/octet-stream")
    assert [entry >> 63 for entry in struct.unpack("<8Q", answer.content)] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert "Range" in problem(session.get(path), 416)["detail"]


def test_an_answer_is_bounded(special):
    with special(max_answer="4K") as service:
        session = service.session()
        pid = session.spawn()
        answer = session.get(f"/fs/proc/{pid}/pagemap", headers={"Range": "bytes=0-99999"})
        assert (answer.status_code, len(answer.content)) == (206, 4096)
        assert answer.headers["content-range"].startswith("bytes 0-4095/")


def test_files_of_the_disk(session):
    made = session.post("/files", {"path": "/data/f", "size": "1M"})
    assert made.status_code == 201
    assert (made.json()["path"], made.json()["size"]) == ("/data/f", 1 << 20)
    listed = session.get("/files").json()
    assert [(item["path"], item["size"]) for item in listed["items"]] == [("/data/f", 1 << 20)]
    pid = session.spawn()
    assert session.call(pid, "read", path="/data/f", offset=0, length="64K")["result"] == {"bytes": 65536}
    for bad in ({"path": "/proc/f", "size": 1}, {"path": "relative", "size": 1}, {"path": "", "size": 1}, {"path": "/data/../x", "size": 1}):
        assert 400 <= session.post("/files", bad).status_code < 500
    problem(session.post("/files", {"path": "/data/f", "size": "1X"}), 422, "1X")


def test_an_archive_holds_the_files_as_they_are_read(session):
    import io
    import tarfile

    pid = session.spawn()
    first = session.get("/archive")
    assert first.headers["content-type"] == "application/x-tar"
    assert session.get("/archive").content == first.content
    with tarfile.open(fileobj=io.BytesIO(first.content)) as tar:
        names = tar.getnames()
        for path in ("proc/meminfo", f"proc/{pid}/status", "sys/fs/cgroup/cgroup.procs"):
            member = tar.extractfile(path)
            assert member is not None
            assert member.read() == session.get(f"/fs/{path}").content
    assert f"proc/{pid}/pagemap" not in names
