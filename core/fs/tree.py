"""The file tree: /proc, /sys, the cgroup tree, /dev/kmsg and the disk, as one table.

Every file is one `Row` of `ROWS`: path pattern, mode, documentation, how to read it, how to write it, and an honest
word on how much of it is Linux's. A path is resolved by replacing what varies by a placeholder and looking the rest up:

    /proc/117/maps                          /proc/<pid>/maps                       the task
    /sys/fs/cgroup/app/web/memory.max       /sys/fs/cgroup/<cgroup>/memory.max     the cgroup
    /sys/devices/system/node/node1/meminfo  /sys/devices/system/node/<node>/meminfo  1
    /data/f                                 /data/<file>                           the inode

Directories follow from the table: a directory is the beginning of some pattern. To add a file: its function and its row.
`FILES` is the table for documentation.

Reading changes nothing; all that changes anything (`write`, `mkdir`, `rmdir`, `create_file`) comes in through `Kernel.call`.
Errors are `FsError`: errno and a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from core.abi.errno import SysError
from core.fs import cgroup, cpuset, disk, hugepages, ksm, lru_gen, proc, proc_pid, sysctl, sysfs, zram
from core.fs.disk import create_file as create_file
from core.fs.node import FsError as FsError
from core.fs.node import Row, decode
from core.mm import memcontrol
from core.sched import psi

if TYPE_CHECKING:
    from core.kernel import Kernel

CGROUP, NODES, DATA = "/sys/fs/cgroup", "/sys/devices/system/node", "/data"
HUGE, MNT = "/dev/hugepages", "/mnt"
HUGE_NOTE = "reads as zeros: content is one value a page"
PID = "/proc/<pid>/"
NODE = NODES + "/<node>/"
MM = "/sys/kernel/mm/"
WHOLE_MOST = 64 << 20  # bytes of a binary file that `read` hands over at once
PSI_NOTE = "a trigger reports by the event psi and stays as long as the machine"

ROWS: tuple[Row, ...] = (
    # ---- /proc
    Row("/proc/meminfo", 0o444, "memory by use, kB", proc.meminfo, support="partial", note="Buffers and Zswap are 0"),
    Row("/proc/vmstat", 0o444, "counters and events of the whole machine", proc.vmstat, support="partial",
        note="workingset_nodes, pgscan_direct_throttle, allocstall_normal, unevictable_pgs_stranded and the classic LRU's pgskip_* stay 0"),
    Row("/proc/buddyinfo", 0o444, "free blocks by zone and order 0..10", proc.buddyinfo),
    Row("/proc/pagetypeinfo", 0o400, "free blocks by migrate type", proc.pagetypeinfo, support="partial",
        note="HighAtomic and Isolate are empty: nobody asks in an interrupt, no memory goes offline"),
    Row("/proc/zoneinfo", 0o444, "zones: watermarks, reserves, counters", proc.zoneinfo,
        support="partial", note="per-CPU lists stay as boot left them"),
    Row("/proc/swaps", 0o444, "swap areas, kB", proc.swaps),
    *(Row(f"/proc/pressure/{name}", 0o666, f"stall information: {what}; writing `some 150000 1000000` sets a trigger", partial(proc.pressure, resource),
          partial(proc.write_pressure, resource), "partial", PSI_NOTE, present=proc.has_psi)
      for name, what, resource in (("memory", "memory", psi.MEM), ("cpu", "CPU", psi.CPU), ("io", "I/O", psi.IO))),
    Row("/proc/stat", 0o444, "CPU time, boot time, processes", proc.stat, support="partial", note="user, system, idle and iowait; no interrupts"),
    Row("/proc/uptime", 0o444, "seconds since boot, seconds idle", proc.uptime),
    Row("/proc/loadavg", 0o444, "load averages, running and all tasks, last pid", proc.loadavg, support="partial",
        note="programs count, calls of clients do not"),
    Row("/proc/version", 0o444, "whose behaviour this kernel has", proc.version),
    Row("/proc/cmdline", 0o444, "boot parameters", proc.cmdline),
    Row("/proc/cpuinfo", 0o444, "CPUs", proc.cpuinfo, support="partial", note="enough to count them"),
    Row("/proc/filesystems", 0o444, "file systems", proc.filesystems),
    Row("/proc/mounts", 0o444, "what is mounted where", proc.mounts),
    Row("/proc/cgroups", 0o444, "controllers", proc.cgroups),
    Row("/proc/kpagecount", 0o400, "mappings of each frame, u64", pread=proc.kpagecount, size=proc.kpage_size),
    Row("/proc/kpageflags", 0o400, "flags of each frame, u64", pread=proc.kpageflags, size=proc.kpage_size),
    Row("/proc/kpagecgroup", 0o400, "inode of the cgroup that each frame is charged to, u64", pread=proc.kpagecgroup, size=proc.kpage_size),
    *sysctl.rows(),
    *hugepages.sysctl_rows(),
    # ---- /proc/<pid>
    Row(PID + "maps", 0o444, "mappings in address order", proc_pid.maps),
    Row(PID + "smaps", 0o444, "mappings and what is resident in each", proc_pid.show_smaps),
    Row(PID + "smaps_rollup", 0o444, "the sums of smaps", proc_pid.smaps_rollup),
    Row(PID + "numa_maps", 0o444, "mappings, policies and pages by node", proc_pid.numa_maps),
    Row(PID + "status", 0o444, "names, memory, signals, CPUs", proc_pid.status,
        support="partial", note="no context switches, no pending signals, one thread"),
    Row(PID + "stat", 0o444, "52 numbers on one line: fields 10-13 are the fault counters", proc_pid.stat,
        support="partial", note="what is not simulated is 0"),
    Row(PID + "statm", 0o444, "pages: size resident shared text lib data dt", proc_pid.statm),
    Row(PID + "pagemap", 0o400, "an entry for each page of the address space, u64; read a range", pread=proc_pid.pagemap, size=proc_pid.pagemap_size),
    Row(PID + "clear_refs", 0o200, "1 all, 2 anonymous, 3 file, 4 soft-dirty, 5 peak RSS", None, proc_pid.clear_refs),
    Row(PID + "oom_score", 0o444, "how likely the OOM killer is to choose it, 0..2000", proc_pid.oom_score),
    Row(PID + "oom_score_adj", 0o644, "-1000 never .. 1000 first", proc_pid.oom_score_adj, proc_pid.write_oom_score_adj),
    Row(PID + "oom_adj", 0o644, "the old scale, -17..15", proc_pid.oom_adj, proc_pid.write_oom_adj),
    Row(PID + "limits", 0o444, "resource limits", proc_pid.limits, support="partial", note="data, stack, memlock and as act"),
    Row(PID + "comm", 0o644, "name, at most 15 characters", proc_pid.comm, proc_pid.write_comm),
    Row(PID + "cmdline", 0o444, "arguments, separated by NUL", proc_pid.cmdline, support="partial", note="the name is the only argument"),
    Row(PID + "environ", 0o400, "environment", proc_pid.environ, support="partial", note="programs have none"),
    Row(PID + "cgroup", 0o444, "the cgroup it is in", proc_pid.cgroup),
    Row(PID + "sched", 0o444, "running time, and what NUMA balancing has learnt", proc_pid.sched, support="partial",
        note="no load averages (se.avg), no uclamp; switches and migrations are not counted; written, it does nothing"),
    Row(PID + "ksm_merging_pages", 0o400, "entries that map KSM pages", ksm.merging_pages),
    Row(PID + "ksm_stat", 0o400, "pages that ksmd watches", ksm.ksm_stat),
    # ---- /sys/kernel/mm
    *sysfs.rows(),
    *ksm.rows(),
    *hugepages.sysfs_rows(MM),
    Row(MM + "swap/vma_ra_enabled", 0o644, "swap read-ahead by address, if no swap area rotates", sysfs.vma_ra_enabled, sysfs.write_vma_ra_enabled),
    *lru_gen.rows(),
    Row(MM + "numa/demotion_enabled", 0o444, "demote instead of reclaim", sysfs.numa_demotion, support="partial", note="always off"),
    # ---- /sys/kernel/debug
    Row("/sys/kernel/debug/extfrag/extfrag_index", 0o444, "by zone and order: lack of memory (0) or fragmentation (1); -1: a block is free",
        sysfs.extfrag_index),
    Row("/sys/kernel/debug/extfrag/unusable_index", 0o444, "by zone and order: share of free memory in smaller blocks", sysfs.unusable_index),
    # ---- /sys/block
    *zram.rows(),
    # ---- /sys/devices/system
    Row(NODES + "/online", 0o444, "nodes that are there", sysfs.node_list),
    Row(NODES + "/possible", 0o444, "nodes that could be", sysfs.node_list),
    Row(NODES + "/has_cpu", 0o444, "nodes with a CPU", sysfs.nodes_with_cpu),
    Row(NODES + "/has_memory", 0o444, "nodes with memory", sysfs.node_list),
    Row(NODES + "/has_normal_memory", 0o444, "nodes with ordinary memory", sysfs.node_list),
    Row(NODE + "meminfo", 0o444, "the node's share of meminfo, kB", sysfs.node_meminfo),
    Row(NODE + "vmstat", 0o444, "the node's counters", sysfs.node_vmstat),
    Row(NODE + "numastat", 0o444, "where allocations went", sysfs.numastat),
    Row(NODE + "distance", 0o444, "distance to each node", sysfs.distance),
    Row(NODE + "cpulist", 0o444, "its CPUs", sysfs.cpulist),
    Row(NODE + "cpumap", 0o444, "its CPUs as a mask", sysfs.cpumap),
    Row(NODE + "compact", 0o200, "compact the node", None, sysfs.compact_node),
    *hugepages.node_rows(NODE),
    *sysfs.balancing_rows(),
    Row("/sys/devices/system/cpu/online", 0o444, "CPUs that are there", sysfs.cpu_list),
    Row("/sys/devices/system/cpu/possible", 0o444, "CPUs that could be", sysfs.cpu_list),
    # ---- /sys/fs/cgroup
    *cgroup.rows(),
    *cpuset.rows(CGROUP + "/<cgroup>/"),
    *hugepages.cgroup_rows(CGROUP + "/<cgroup>/"),
    # ---- /dev, /var, /data
    Row("/dev/kmsg", 0o644, "kernel log, one record a line: level,sequence,microseconds,-;text", proc.kmsg, proc.write_kmsg),
    Row("/var/log/dmesg", 0o444, "kernel log as dmesg prints it", proc.dmesg),
    Row(HUGE + "/<hugefile>", 0o644, "a file of huge pages: map it", pread=disk.read_huge, size=disk.size, support="partial", note=HUGE_NOTE),
    Row(MNT + "/<mount>/<hugefile>", 0o644, "the same on a mount of hugetlbfs", pread=disk.read_huge, size=disk.size, support="partial", note=HUGE_NOTE),
    Row(DATA + "/<file>", 0o644, "a file of the simulated disk", pread=disk.read, size=disk.size,
        support="partial", note="content follows from the name; writes change sizes and the page cache, not bytes"),
)  # fmt: skip

TABLE: dict[str, Row] = {row.pattern: row for row in ROWS}
FILES: tuple[Row, ...] = ROWS  # the table for documentation


def _children() -> dict[str, list[str]]:
    """Directory pattern → names below it, in the table's order."""
    found: dict[str, list[str]] = {"/": []}
    for row in ROWS:
        parts = row.pattern.strip("/").split("/")
        for i, part in enumerate(parts):
            names = found.setdefault("/" + "/".join(parts[:i]), [])
            if part not in names:
                names.append(part)
    return found


DIRECTORIES: dict[str, list[str]] = _children()


@dataclass(frozen=True, slots=True)
class Node:
    """A resolved path: its pattern, what its placeholder stands for, and its row (None: a directory)."""

    path: str
    pattern: str
    subject: Any
    row: Row | None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What a handler takes after the kernel."""
        return () if self.subject is None else (self.subject,)


# ---------------------------------------------------------------- from a path to a node

def resolve(k: Kernel, path: str) -> Node:
    """The node at an absolute path; FsError ENOENT, or ENOTDIR for a path that goes on below a file."""
    parts = split(path)
    pattern, subject = _pattern(k, parts)
    name = "/" + "/".join(parts)
    row = TABLE.get(pattern)
    if row is not None and (row.present is None or row.present(k, subject)):
        return Node(name, pattern, subject, row)
    if row is None and pattern in DIRECTORIES:
        return Node(name, pattern, subject, None)
    raise _missing(pattern, name, row)


def split(path: str) -> list[str]:
    """The parts of an absolute path; EINVAL for a relative one or one with . or .."""
    parts = [part for part in path.split("/") if part]
    if not path.startswith("/") or "." in parts or ".." in parts or "\0" in path:
        raise FsError("EINVAL", f"a path is absolute and without . and ..: {path!r}")
    return parts


def _pattern(k: Kernel, parts: list[str]) -> tuple[str, Any]:
    """The path with its variable part replaced, and what that part names."""
    if parts[:1] == ["proc"] and parts[1:2] and parts[1].isascii() and parts[1].isdigit():
        return "/".join(["/proc", "<pid>", *parts[2:]]), _task(k, parts[1])
    if parts[:3] == ["sys", "fs", "cgroup"]:
        group, rest = _cgroup(k, parts[3:])
        return "/".join([CGROUP, "<cgroup>", *rest]), group
    if parts[:4] == ["sys", "devices", "system", "node"] and parts[4:] and (node := _node(k, parts[4])) is not None:
        return "/".join([NODES, "<node>", *parts[5:]]), node
    if parts[:2] == ["sys", "block"] and parts[2:] and parts[2] in (known := zram.devices(k)):
        return "/".join([zram.BLOCK, "<zram>", *parts[3:]]), known[parts[2]]
    if parts[:1] == ["data"] and len(parts) == 2:
        return DATA + "/<file>", _file(k, "/" + "/".join(parts))
    if parts[:2] == ["dev", "hugepages"] and len(parts) == 3:
        return HUGE + "/<hugefile>", _file(k, "/" + "/".join(parts))
    if parts[:1] == ["mnt"] and len(parts) > 1:
        if f"/mnt/{parts[1]}" not in k.mounts:
            raise FsError("ENOENT", f"nothing is mounted at /mnt/{parts[1]}")
        return ("/mnt/<mount>", parts[1]) if len(parts) == 2 else ("/".join(["/mnt/<mount>/<hugefile>", *parts[3:]]), _file(k, "/" + "/".join(parts[:3])))
    if any("<" in part for part in parts):
        raise FsError("ENOENT", f"no file /{'/'.join(parts)}: replace the placeholder by a name")
    return "/" + "/".join(parts), None


def _task(k: Kernel, digits: str) -> Any:
    task = k.tasks.get(int(digits)) if len(digits) < 12 and digits == str(int(digits)) else None
    if task is None or task.state == "dead":
        raise FsError("ENOENT", f"no process {digits}: GET the list of processes, or it has exited and been reaped")
    return task


def _cgroup(k: Kernel, parts: list[str]) -> tuple[Any, list[str]]:
    """The deepest cgroup along the path, and what is left of the path."""
    group = k.root_cgroup
    for i, part in enumerate(parts):
        child = group.children.get(part)
        if child is None:
            return group, parts[i:]
        group = child
    return group, []


def _node(k: Kernel, name: str) -> int | None:
    return next((node for node in range(k.nr_nodes) if name == f"node{node}"), None)


def _file(k: Kernel, path: str) -> Any:
    if path not in k.files:
        raise FsError("ENOENT", f"no file {path}: create it first")
    return k.files[path]


def _missing(pattern: str, name: str, row: Row | None) -> FsError:
    """Why nothing is there."""
    if row is not None:
        why = "the root has no limits; a child has memory.* files once its parent's cgroup.subtree_control says +memory"
        return FsError("ENOENT", f"no file {name}: this cgroup does not have it ({why})")
    head = pattern.rpartition("/")[0]
    if head in TABLE:
        return FsError("ENOTDIR", f"{name.rpartition('/')[0]} is a file")
    if name.startswith("/proc/self"):
        return FsError("ENOENT", "/proc/self: the client is no process of the simulated machine; use /proc/<pid>")
    return FsError("ENOENT", f"no file {name}")


# ---------------------------------------------------------------- what user space does with files

def read(k: Kernel, path: str) -> bytes:
    """The whole file. EISDIR, EACCES (write-only), EFBIG (read a range of it instead)."""
    node = resolve(k, path)
    row = _file_row(node)
    if row.pread is not None:
        size = _size(k, node)
        if size > WHOLE_MOST:
            raise FsError("EFBIG", f"{path} has {size} bytes: read a range of it")
        return _guard(row.pread, k, *node.arguments, 0, size)
    if row.read is None:
        raise FsError("EACCES", f"{path} is write-only")
    text = _guard(row.read, k, *node.arguments)
    return text.encode() if isinstance(text, str) else text


def pread(k: Kernel, path: str, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset`; fewer at the end of the file."""
    if offset < 0 or length < 0:
        raise FsError("EINVAL", "offset and length are not negative")
    node = resolve(k, path)
    row = _file_row(node)
    if row.pread is None:
        return read(k, path)[offset : offset + length]
    if length > WHOLE_MOST:
        raise FsError("EINVAL", f"at most {WHOLE_MOST} bytes in one read, not {length}")
    return _guard(row.pread, k, *node.arguments, offset, length)


def write(k: Kernel, path: str, data: bytes) -> None:
    """What `echo` does. EISDIR, EACCES (read-only), and whatever the file itself refuses."""
    node = resolve(k, path)
    row = _file_row(node)
    if row.write is None:
        raise FsError("EACCES", f"{path} is read-only")
    _guard(row.write, k, *node.arguments, decode(data, path))


def _guard(function: Any, *arguments: Any) -> Any:
    """Call a handler; the error of a mechanism below becomes the file's."""
    try:
        return function(*arguments)
    except SysError as error:
        raise FsError(error.errno.name, error.why or error.errno.name) from None


def _file_row(node: Node) -> Row:
    if node.row is None:
        raise FsError("EISDIR", f"{node.path} is a directory")
    return node.row


def _size(k: Kernel, node: Node) -> int:
    assert node.row is not None and node.row.size is not None
    return node.row.size(k, *node.arguments)


def listdir(k: Kernel, path: str) -> list[str]:
    """Names in a directory: the table's, in its order, then what varies (pids, cgroups, nodes, files). ENOTDIR."""
    node = resolve(k, path)
    if node.row is not None:
        raise FsError("ENOTDIR", f"{node.path} is a file")
    return list(_names(k, node))


def _names(k: Kernel, node: Node) -> Iterator[str]:
    base = node.pattern.rstrip("/")
    for name in DIRECTORIES[node.pattern]:
        row = TABLE.get(f"{base}/{name}")
        if name == "<pid>":
            yield from (str(task.pid) for task in k.tasks.values() if task.state != "dead")
        elif name == "<zram>":
            yield from zram.devices(k)
        elif name == "<node>":
            yield from (f"node{i}" for i in range(k.nr_nodes))
        elif name == "<file>":
            yield from (path[len(DATA) + 1 :] for path in k.files if path.startswith(DATA + "/"))
        elif name == "<mount>":
            yield from (path[len(MNT) + 1 :] for path in k.mounts if path.startswith(MNT + "/"))
        elif name == "<hugefile>":
            yield from (path[len(node.path) + 1 :] for path in k.files if path.rpartition("/")[0] == node.path)
        elif row is None or row.present is None or row.present(k, node.subject):
            yield name
    if node.pattern == CGROUP + "/<cgroup>":
        yield from node.subject.children


def stat(k: Kernel, path: str) -> dict[str, Any]:
    """type, mode, size (bytes; None where a file has no length until it is read), binary, doc, support, note."""
    node = resolve(k, path)
    if node.row is None:
        mode = 0o755 if path.startswith((CGROUP, DATA, HUGE, MNT)) else 0o555
        return {"type": "dir", "mode": mode, "size": None, "binary": False, "doc": "", "support": "full", "note": ""}
    row = node.row
    size = _size(k, node) if row.size is not None else None
    return {"type": "file", "mode": row.mode, "size": size, "binary": row.binary, "doc": row.doc, "support": row.support, "note": row.note}


def mkdir(k: Kernel, path: str) -> None:
    """Make a cgroup. EPERM elsewhere, EEXIST, ENOENT (no parent), EAGAIN (cgroup.max.*)."""
    parts = split(path)
    if parts[:3] != ["sys", "fs", "cgroup"]:
        raise FsError("EPERM", f"directories are made in {CGROUP} only")
    group, rest = _cgroup(k, parts[3:])
    if not rest or (len(rest) == 1 and f"{CGROUP}/<cgroup>/{rest[0]}" in TABLE):
        raise FsError("EEXIST", f"{path} exists")
    if len(rest) > 1:
        raise FsError("ENOENT", f"no cgroup {group.path.rstrip('/')}/{rest[0]}: make it first")
    _guard(memcontrol.create, k, "/" + "/".join(parts[3:]))


def rmdir(k: Kernel, path: str) -> None:
    """Remove a cgroup (EBUSY with processes or children) or a file of the disk; EPERM for anything else."""
    node = resolve(k, path)
    if node.pattern == DATA + "/<file>" or node.pattern.endswith("/<hugefile>"):
        disk.unlink(k, node.path)
    elif node.pattern == CGROUP + "/<cgroup>":
        _guard(memcontrol.remove, k, node.subject.path)
    else:
        raise FsError("EPERM", f"{path} cannot be removed: only cgroups and files of {DATA} and of hugetlbfs can")


# ---------------------------------------------------------------- the whole tree

def walk(k: Kernel, top: str = "/") -> Iterator[Node]:
    """Every file below a directory, depth first, in listing order."""
    for name in listdir(k, top):
        node = resolve(k, f"{top.rstrip('/')}/{name}")
        if node.row is None:
            yield from walk(k, node.path)
        else:
            yield node


def archive(k: Kernel) -> list[tuple[str, bytes]]:
    """All text files of /proc and /sys with their content: a captured system for psutil, smem, procps and their like.

    Left out: binary files, write-only files, and files that refuse to be read (smaps_rollup of a zombie).
    """
    files = []
    for top in ("/proc", "/sys"):
        for node in walk(k, top):
            if node.row is None or node.row.binary or node.row.read is None:
                continue
            try:
                files.append((node.path, read(k, node.path)))
            except FsError:
                continue
    return files
