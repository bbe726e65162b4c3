"""The tree as a table: every row resolves, reads and says what it is; everything else is refused with the right errno."""
import re
from collections.abc import Iterator

import pytest

from core import FILES, FsError, Kernel, Machine
from core.fs import tree


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """Two nodes, a disk and zram to swap to, a process, a zombie, a cgroup with the memory controller, a file: something for every pattern."""
    k = Kernel.boot(Machine.from_dict({"memory": "512M", "nodes": 2, "swap": [{"size": "64M"}, {"size": "32M", "kind": "zram"}]}))
    run(k, "put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+cpuset +memory +hugetlb")
    run(k, "mkdir", path="/sys/fs/cgroup/app")
    run(k, "mkdir", path="/sys/fs/cgroup/app/web")
    run(k, "create_file", path="/data/f", size=10_000)
    run(k, "mount", path="/mnt/huge", page_size=2 << 20)
    for path in ("/dev/hugepages/f", "/mnt/huge/f"):
        run(k, "create_file", path=path, size=2 << 20)
    pid = run(k, "spawn", comm="student", cgroup="/app")["pid"]
    child = run(k, "fork", pid)["pid"]
    run(k, "exit", child)
    return k


def run(k: Kernel, op: str, pid: int | None = None, **args: object) -> dict[str, int]:
    answer = k.call(op, pid, **args)
    assert answer.errno is None, (op, args, answer)
    return answer.result or {}


def pids(k: Kernel) -> list[str]:
    return [name for name in k.listdir("/proc") if name.isdigit()]


def every_path(k: Kernel, top: str = "/") -> Iterator[str]:
    for name in k.listdir(top):
        path = f"{top.rstrip('/')}/{name}"
        if k.stat(path)["type"] == "dir":
            yield from every_path(k, path)
        else:
            yield path


def refused(call: object, *args: object) -> str:
    with pytest.raises(FsError) as error:
        call(*args)  # type: ignore[operator]
    assert len(error.value.message) > 10
    return error.value.errno


# ---------------------------------------------------------------- the table

def test_patterns_are_unique_and_described() -> None:
    assert len({row.pattern for row in FILES}) == len(FILES) > 150
    for row in FILES:
        assert row.doc, row.pattern
        assert row.support in ("full", "partial", "none"), row.pattern
        assert (row.support == "full") == (row.note == ""), f"{row.pattern}: a file that is not whole says what is missing"


def test_modes_say_what_can_be_done() -> None:
    for row in FILES:
        readable = row.read is not None or row.pread is not None
        assert readable == bool(row.mode & 0o444), row.pattern
        if row.write is not None:
            assert row.mode & 0o222, row.pattern


def test_every_row_is_met_by_a_listing(kernel: Kernel) -> None:
    met = {tree.resolve(kernel, path).pattern for path in every_path(kernel)}
    assert met == {row.pattern for row in FILES}


def test_every_file_reads_twice_alike(kernel: Kernel) -> None:
    digest = kernel.digest()
    for path in every_path(kernel):
        stat = kernel.stat(path)
        if stat["binary"]:
            first = kernel.pread(path, 0, 4096)
            assert first == kernel.pread(path, 0, 4096) and len(first) == min(4096, stat["size"])
        elif stat["mode"] & 0o444:
            if path.endswith("/smaps_rollup") and b"Z (zombie)" in kernel.read(path.replace("smaps_rollup", "status")):
                assert refused(kernel.read, path) == "ESRCH"
                continue
            text = kernel.read(path)
            assert text == kernel.read(path) and (text == b"" or text.endswith((b"\n", b"\0"))), path
    assert kernel.digest() == digest, "reading changed the kernel"


def test_a_listing_is_what_stat_finds(kernel: Kernel) -> None:
    assert {"proc", "sys", "dev", "data"} <= set(kernel.listdir("/"))
    assert kernel.listdir("/sys/devices/system/node")[-2:] == ["node0", "node1"]
    assert kernel.listdir("/data") == ["f"]
    assert "web" in kernel.listdir("/sys/fs/cgroup/app")
    assert kernel.stat("/data/f")["size"] == 10_000


def test_the_root_has_no_limits_and_a_child_without_controller_no_memory_files(kernel: Kernel) -> None:
    root, app, web = (kernel.listdir(f"/sys/fs/cgroup{path}") for path in ("", "/app", "/app/web"))
    assert "memory.max" not in root and "memory.stat" in root and "cgroup.type" not in root
    assert "memory.max" in app and "memory.current" in app and "cgroup.type" in app
    assert [name for name in web if name.startswith("memory.")] == ["memory.pressure"]


# ---------------------------------------------------------------- what is not there

MISSING = (
    ("/proc/nothing", "ENOENT"), ("/proc/99999/maps", "ENOENT"), ("/proc/007/maps", "ENOENT"), ("/proc/self/maps", "ENOENT"),
    ("/proc/1/nothing", "ENOENT"), ("/proc/meminfo/x", "ENOTDIR"), ("/sys/fs/cgroup/none/memory.max", "ENOENT"),
    ("/sys/fs/cgroup/memory.max", "ENOENT"), ("/sys/fs/cgroup/app/web/memory.max", "ENOENT"), ("/data/none", "ENOENT"), ("/data/f/x", "ENOENT"),
    ("/sys/devices/system/node/node2/meminfo", "ENOENT"), ("/proc/<pid>/maps", "ENOENT"),
    ("proc/meminfo", "EINVAL"), ("/proc/../proc/meminfo", "EINVAL"),
    ("", "EINVAL"), ("/etc/passwd", "ENOENT"), ("/proc/" + "9" * 5000, "ENOENT"), ("/proc/1e3/maps", "ENOENT"), ("/proc/²/maps", "ENOENT"),
)  # fmt: skip


@pytest.mark.parametrize(("path", "errno"), MISSING)
def test_what_is_not_there(kernel: Kernel, path: str, errno: str) -> None:
    assert refused(kernel.read, path) == errno
    assert refused(kernel.stat, path) == errno


def test_directories_and_files_are_not_confused(kernel: Kernel) -> None:
    assert refused(kernel.read, "/proc") == "EISDIR"
    assert refused(kernel.listdir, "/proc/meminfo") == "ENOTDIR"
    assert refused(tree.write, kernel, "/proc", b"1") == "EISDIR"


def test_read_only_and_write_only(kernel: Kernel) -> None:
    assert refused(tree.write, kernel, "/proc/meminfo", b"1") == "EACCES"
    assert refused(kernel.read, "/proc/sys/vm/drop_caches") == "EACCES"
    assert refused(kernel.read, f"/proc/{pids(kernel)[0]}/clear_refs") == "EACCES"


@pytest.mark.parametrize(("kind", "page_cache", "slab"), [(b"1", 1, 0), (b"2", 0, 1), (b"3", 1, 1)])
def test_drop_caches_counts_what_it_dropped(kind: bytes, page_cache: int, slab: int) -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "64M"}))
    tree.write(k, "/proc/sys/vm/drop_caches", kind)
    lines = k.read("/proc/vmstat").decode().splitlines()
    assert f"drop_pagecache {page_cache}" in lines and f"drop_slab {slab}" in lines


def test_pagemap_is_never_read_whole(kernel: Kernel) -> None:
    path = f"/proc/{pids(kernel)[0]}/pagemap"
    assert kernel.stat(path)["size"] == 0x7FFFFFFFF000 // 4096 * 8
    assert refused(kernel.read, path) == "EFBIG"
    assert [refused(kernel.pread, path, *bad) for bad in ((1, 8), (0, 7), (-8, 8), (0, 1 << 40))] == ["EINVAL"] * 4
    assert kernel.pread(path, kernel.stat(path)["size"], 8) == b""


# ---------------------------------------------------------------- cgroup limits through the files

@pytest.fixture
def app() -> tuple[Kernel, str]:
    k = Kernel.boot(Machine.from_dict({"memory": "256M"}))
    run(k, "put", path="/sys/fs/cgroup/cgroup.subtree_control", data=b"+memory")
    run(k, "mkdir", path="/sys/fs/cgroup/app")
    return k, "/sys/fs/cgroup/app/"


SETTINGS = (
    ("memory.min", "0\n", "1M", "1048576\n"), ("memory.low", "0\n", "5000", "4096\n"), ("memory.high", "max\n", "2G", "2147483648\n"),
    ("memory.max", "max\n", "50M\n", "52428800\n"), ("memory.swap.max", "max\n", "0", "0\n"), ("memory.swap.high", "max\n", "1G", "1073741824\n"),
    ("memory.oom.group", "0\n", "1", "1\n"), ("cgroup.max.depth", "max\n", "3", "3\n"), ("cgroup.max.descendants", "max\n", "0", "0\n"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "default", "written", "shown"), SETTINGS)
def test_cgroup_settings(app: tuple[Kernel, str], name: str, default: str, written: str, shown: str) -> None:
    k, base = app
    assert k.read(base + name).decode() == default
    run(k, "put", path=base + name, data=written.encode())
    assert k.read(base + name).decode() == shown
    if default == "max\n":
        run(k, "put", path=base + name, data=b"max\n")
        assert k.read(base + name) == b"max\n"


BAD = (
    ("memory.max", "50Q", "EINVAL"), ("memory.max", "-1", "EINVAL"), ("memory.max", "", "EINVAL"), ("memory.oom.group", "2", "EINVAL"),
    ("memory.oom.group", "yes", "EINVAL"), ("memory.current", "0", "EACCES"), ("memory.peak", "1", "EACCES"), ("cgroup.procs", "99999", "ESRCH"),
    ("cgroup.procs", "x", "EINVAL"), ("cgroup.procs", "0", "EINVAL"), ("cgroup.subtree_control", "+cpu", "EINVAL"),
    ("cgroup.type", "domain", "EINVAL"), ("cgroup.type", "threaded", "EOPNOTSUPP"), ("cgroup.max.depth", "-1", "EINVAL"),
    ("cgroup.kill", "0", "EINVAL"), ("memory.nothing", "1", "ENOENT"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "value", "errno"), BAD)
def test_cgroup_refuses(app: tuple[Kernel, str], name: str, value: str, errno: str) -> None:
    k, base = app
    before = k.digest()
    assert refused(tree.write, k, base + name, value.encode()) == errno
    assert k.digest() == before


def test_making_and_removing_cgroups(app: tuple[Kernel, str]) -> None:
    k, base = app
    assert refused(tree.mkdir, k, base + "memory.max") == "EEXIST"
    assert refused(tree.mkdir, k, base) == "EEXIST"
    assert refused(tree.mkdir, k, base + "a/b") == "ENOENT"
    assert refused(tree.mkdir, k, "/proc/x") == "EPERM"
    assert refused(tree.rmdir, k, "/sys/fs/cgroup") == "EBUSY"
    assert refused(tree.rmdir, k, "/proc/meminfo") == "EPERM"
    pid = run(k, "spawn", comm="a", cgroup="/app")["pid"]
    assert k.read(base + "cgroup.procs") == f"{pid}\n".encode()
    assert k.read(base + "cgroup.events").startswith(b"populated 1\n")
    assert refused(tree.rmdir, k, base) == "EBUSY"
    tree.write(k, base + "cgroup.kill", b"1\n")
    assert k.read(base + "cgroup.procs") == b""
    assert k.read(base + "cgroup.events").startswith(b"populated 0\n")
    tree.rmdir(k, base)
    assert refused(k.listdir, base) == "ENOENT"


# ---------------------------------------------------------------- sysctl

SYSCTL = (
    ("overcommit_memory", "0\n", ("0", "1", "2"), ("3", "-1", "x")), ("swappiness", "60\n", ("0", "200"), ("201", "-1")),
    ("max_map_count", "65530\n", ("0", "1000000"), ("-1",)), ("watermark_scale_factor", "10\n", ("1", "3000"), ("0", "3001")),
    ("panic_on_oom", "0\n", ("0", "1", "2"), ("3",)), ("oom_kill_allocating_task", "0\n", ("1",), ("2",)),
    ("dirty_ratio", "20\n", ("0", "100"), ("101",)),
    ("page-cluster", "3\n", ("0", "31"), ("32",)), ("overcommit_ratio", "50\n", ("0", "200"), ("-1",)),
)  # fmt: skip


@pytest.mark.parametrize(("name", "default", "good", "bad"), SYSCTL)
def test_sysctl_ranges(name: str, default: str, good: tuple[str, ...], bad: tuple[str, ...]) -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "256M"}))
    path = f"/proc/sys/vm/{name}"
    assert k.read(path).decode() == default
    for value in good:
        run(k, "put", path=path, data=value.encode())
        assert k.read(path).decode() == f"{value}\n"
    for value in bad:
        assert refused(tree.write, k, path, value.encode()) == "EINVAL"
        assert k.read(path).decode() == f"{good[-1]}\n"


def test_every_sysctl_of_the_kernel_has_its_file(kernel: Kernel) -> None:
    for name, value in kernel.sysctl.items():
        assert kernel.read("/proc/sys/" + name.replace(".", "/", 1)).decode().split() == str(value).split()


def test_ratio_and_bytes_exclude_each_other() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "256M"}))
    run(k, "put", path="/proc/sys/vm/dirty_bytes", data=b"8388608")
    assert k.read("/proc/sys/vm/dirty_ratio") == b"0\n"
    assert re.search(r"^nr_dirty_threshold 2048$", k.read("/proc/vmstat").decode(), re.M)
    run(k, "put", path="/proc/sys/vm/dirty_ratio", data=b"30")
    assert k.read("/proc/sys/vm/dirty_bytes") == b"0\n"


def test_min_free_kbytes_moves_the_watermarks() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "512M", "transparent_hugepage": "never"}))
    run(k, "put", path="/proc/sys/vm/min_free_kbytes", data=b"8192")
    marks = [int(pages) for pages in re.findall(r"^        min +(\d+)$", k.read("/proc/zoneinfo").decode(), re.M)]
    assert 2044 <= sum(marks) <= 2048


def test_lowmem_reserve_ratio() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "512M"}))
    path = "/proc/sys/vm/lowmem_reserve_ratio"
    assert k.read(path) == b"256\t256\t32\t0\t0\n"
    run(k, "put", path=path, data=b"128 256 32 0 0")
    assert k.read(path) == b"128\t256\t32\t0\t0\n"
    for bad in ("", "1 2 3 4 5 6", "a"):
        assert refused(tree.write, k, path, bad.encode()) == "EINVAL"


# ---------------------------------------------------------------- the log and the disk

def test_kmsg_records() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "256M"}))
    tree.write(k, "/dev/kmsg", b"hello")
    tree.write(k, "/dev/kmsg", b"<6>two\nlines \\")
    lines = k.read("/dev/kmsg").decode().splitlines()
    assert all(re.match(r"\d+,\d+,\d+,-;", line) for line in lines)
    assert [int(line.split(",")[1]) for line in lines] == list(range(len(k.dmesg)))
    assert lines[-2].startswith("12,") and lines[-2].endswith(";hello")
    assert lines[-1].startswith("14,") and lines[-1].endswith(r";two\x0alines \x5c")
    assert re.fullmatch(r"\[ *\d+\.\d{6}\] lines \\", k.read("/var/log/dmesg").decode().splitlines()[-1])


FILE_ERRORS = (
    ("/data/f", 4096, "EEXIST"), ("/tmp/f", 1, "EINVAL"), ("/data/", 1, "EINVAL"), ("/data/a/b", 1, "EINVAL"), ("/data/..", 1, "EINVAL"),
    ("/data/" + "x" * 256, 1, "EINVAL"), ("/data/g", -1, "EINVAL"), ("/data/g", 1 << 60, "EFBIG"),
)  # fmt: skip


@pytest.mark.parametrize(("path", "size", "errno"), FILE_ERRORS)
def test_files_that_cannot_be(kernel: Kernel, path: str, size: int, errno: str) -> None:
    assert refused(tree.create_file, kernel, path, size) == errno


def test_a_file_has_the_same_bytes_every_time(kernel: Kernel) -> None:
    whole = kernel.read("/data/f")
    assert len(whole) == 10_000 and len(set(whole)) == 256
    assert kernel.pread("/data/f", 4090, 20) == whole[4090:4110]
    assert kernel.pread("/data/f", 9_990, 100) == whole[9_990:]
    assert kernel.pread("/data/f", 20_000, 5) == b""


def test_a_removed_file_gives_its_cache_back() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "256M"}))
    run(k, "create_file", path="/data/f", size=1 << 20)
    pid = run(k, "spawn", comm="a")["pid"]
    before = k.read("/proc/meminfo").decode()
    run(k, "read", pid, path="/data/f", offset=0, length=1 << 20)
    assert cached(k) == cached_in(before) + 1024
    run(k, "rmdir", path="/data/f")
    assert cached(k) == cached_in(before) and k.listdir("/data") == []


def test_a_removed_file_lives_on_in_its_mappings() -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "256M"}))
    for name in "fg":
        run(k, "create_file", path=f"/data/{name}", size=1 << 20)
    pid = run(k, "spawn", comm="a")["pid"]
    before = cached(k)
    address = run(k, "mmap", pid, length=1 << 20, prot="r", flags=["shared"], file="/data/f", offset=0)["address"]
    assert k.call("touch", pid, address=address, length=1 << 20, access="read").errno is None
    run(k, "rmdir", path="/data/f")
    maps = k.read(f"/proc/{pid}/maps").decode()
    assert re.search(r" fe:20 12 +/data/f \(deleted\)$", maps, re.M) and k.listdir("/data") == ["g"]
    run(k, "create_file", path="/data/f", size=4096)
    assert k.files["/data/f"].ino == 14, "the old inode is still in use"
    assert cached(k) == before + 1024
    run(k, "munmap", pid, address=address, length=1 << 20)
    assert cached(k) == before
    run(k, "create_file", path="/data/h", size=4096)
    assert k.files["/data/h"].ino == 12


def cached(k: Kernel) -> int:
    return cached_in(k.read("/proc/meminfo").decode())


def cached_in(text: str) -> int:
    return int(re.search(r"^Cached: +(\d+) kB$", text, re.M)[1])  # type: ignore[index]


# ---------------------------------------------------------------- processes

ADJ = (("oom_adj", "-17", -1000, "-17"), ("oom_adj", "15", 1000, "15"), ("oom_adj", "8", 470, "7"), ("oom_adj", "-8", -470, "-7"),
       ("oom_score_adj", "-1000", -1000, "-17"), ("oom_score_adj", "500", 500, "8"), ("oom_score_adj", "0", 0, "0"))  # fmt: skip


@pytest.mark.parametrize(("name", "written", "score_adj", "old"), ADJ)
def test_oom_adjustments(kernel: Kernel, name: str, written: str, score_adj: int, old: str) -> None:
    base = f"/proc/{pids(kernel)[-2]}/"
    tree.write(kernel, base + name, written.encode())
    assert kernel.read(base + "oom_score_adj").decode() == f"{score_adj}\n"
    assert kernel.read(base + "oom_adj").decode() == f"{old}\n"


BAD_ADJ = (("oom_score_adj", "1001"), ("oom_score_adj", "-1001"), ("oom_score_adj", "max"), ("oom_adj", "16"), ("oom_adj", "-18"),
           ("clear_refs", "0"), ("clear_refs", "6"))  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_ADJ)
def test_process_files_refuse(kernel: Kernel, name: str, value: str) -> None:
    assert refused(tree.write, kernel, f"/proc/{pids(kernel)[-2]}/{name}", value.encode()) == "EINVAL"


def test_comm_is_cut_to_15_characters(kernel: Kernel) -> None:
    base = f"/proc/{pids(kernel)[-2]}/"
    tree.write(kernel, base + "comm", b"a-name-that-is-too-long\n")
    assert kernel.read(base + "comm") == b"a-name-that-is-\n"
    assert b"Name:\ta-name-that-is-\n" in kernel.read(base + "status")
    assert b"(a-name-that-is-) " in kernel.read(base + "stat")


def test_a_zombie_has_no_address_space(kernel: Kernel) -> None:
    zombie = next(pid for pid in pids(kernel) if b"Z (zombie)" in kernel.read(f"/proc/{pid}/status"))
    base = f"/proc/{zombie}/"
    assert [kernel.read(base + name) for name in ("maps", "smaps", "numa_maps", "cmdline")] == [b""] * 4
    assert kernel.read(base + "statm") == b"0 0 0 0 0 0 0\n"
    assert kernel.read(base + "oom_score") == b"0\n"
    assert b"VmSize" not in kernel.read(base + "status")
    assert kernel.pread(base + "pagemap", 0, 80) == b""


def test_stat_has_52_fields(kernel: Kernel) -> None:
    for pid in pids(kernel):
        text = kernel.read(f"/proc/{pid}/stat").decode()
        assert len(text.rpartition(")")[2].split()) == 50


BAD_SETTINGS = (
    {"vm.swapiness": 10}, {"vm.swappiness": 201}, {"vm.swappiness": "60"}, {"vm.overcommit_memory": True}, {"vm.lowmem_reserve_ratio": "1 2"},
    {"vm.nr_hugepages": -4}, {"net.core.somaxconn": 1}, {"vm.max_map_count": -1},
)  # fmt: skip


@pytest.mark.parametrize("sysctl", BAD_SETTINGS, ids=str)
def test_a_machine_with_impossible_settings_is_refused(sysctl: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(sysctl)).replace(".", r"\.")):
        Machine.from_dict({"sysctl": sysctl})


def test_a_machines_settings_are_in_its_files() -> None:
    settings = {"vm.swappiness": 10, "vm.min_free_kbytes": 8192, "vm.watermark_scale_factor": 100, "vm.lowmem_reserve_ratio": "128 256 32 0 0"}
    k = Kernel.boot(Machine.from_dict({"memory": "512M", "sysctl": settings}))
    for name, value in settings.items():
        assert k.read("/proc/sys/" + name.replace(".", "/")).decode().split() == str(value).split()
    zoneinfo = k.read("/proc/zoneinfo").decode()
    assert "protection: (0, 8" in zoneinfo
    low, high = (sum(map(int, re.findall(rf"^        {mark} +(\d+)$", zoneinfo, re.M))) for mark in ("min", "low"))
    assert 2040 <= low <= 2048 and high - low > 1000
