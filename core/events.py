"""The trace catalogue: one class per kind of event, its docstring is its documentation.

Mechanisms report *what Linux decided*, in Linux's words and in the order of the decisions, and never a page at a
time: a run of like faults is one `fault` event, a scan of one lruvec is one `reclaim` event. An event is
a plain value; the machine's clock stamps it (`clock_ns`), whoever hosts the kernel numbers it. `to_dict()`
gives what goes over a wire: integers, strings, lists, and addresses as lower-case hex strings, because a
JSON number cannot hold them. A field that is None is left out: the event has no such thing.

Causes. An event that follows from another names it (`cause`, the other's number): a limit was reached, therefore reclaim,
therefore pages written to swap. One without a cause follows from what set the kernel to work: the request itself, or a `timer`.
A cause always comes before what follows from it, so every chain ends at a request or a timer.

To add an event: a class here, and its row in `EVENTS` at the foot of the page. (`gap` and `bookmark` are
not here: they say something about a stream of events, not about a kernel.)
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

# fields that hold an address (or several): shown in hex
ADDRESSES = frozenset({"address", "start", "end", "old_address"})


def hexadecimal(value: Any) -> Any:
    """An address as a lower-case hex string; lists item by item."""
    if isinstance(value, (list, tuple)):
        return [hexadecimal(item) for item in value]
    return f"{value:#x}"


@dataclass(slots=True)
class Event:
    """Something the kernel decided at `clock_ns` (nanoseconds of simulated time since boot).

    cause: the number of the event that this one follows from. timer: the daemon or program whose time had come, for what
    follows from no event and no request.
    """

    type: ClassVar[str] = "event"

    clock_ns: int
    cause: int | None = field(default=None, kw_only=True)
    timer: str | None = field(default=None, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON-able values, `type` first, addresses in hex, absent fields left out."""
        out: dict[str, Any] = {"type": self.type}
        for name in _NAMES[self.__class__]:
            value = getattr(self, name)
            if value is not None:
                out[name] = hexadecimal(value) if name in ADDRESSES else value
        return out


@dataclass(slots=True)
class Fault(Event):
    """A run of like page faults of one process (tracepoint exceptions:page_fault_user, merged).

    kind: `anon` (a zeroed page), `zero` (the shared zero page), `cow` (copied), `reuse` (made writable in place),
    `file` (page cache), `swap`, `thp`, `hugetlb`, `numa_hint`, `write_notify` (first write to a clean shared file
    page), and what did not end well: `segv`, `bus`, `oom`. address: of the first page. pages: faults in the run.
    stride: pages between neighbours (negative when running down), absent when they are in no order.
    """

    type: ClassVar[str] = "fault"

    pid: int
    kind: str
    major: bool
    address: int
    pages: int = 1
    stride: int | None = 1
    cgroup: str | None = None


@dataclass(slots=True)
class Reclaim(Event):
    """One pass over a lruvec (mm_vmscan_lru_shrink_*): who reclaimed, where, and what came of it, in pages.

    by: `kswapd`, `direct`, `memcg`, or `node` (vm.zone_reclaim_mode). priority: 12 (a 4096th of the list) down to 0 (all of it).
    lists: pages scanned and reclaimed by LRU list, e.g. {"inactive_file": [32, 30]}.
    """

    type: ClassVar[str] = "reclaim"

    by: str
    node: int
    cgroup: str
    priority: int
    scanned: int
    reclaimed: int
    lists: dict[str, list[int]] | None = None
    pid: int | None = None


@dataclass(slots=True)
class SwapOut(Event):
    """Anonymous or shmem pages written to swap. pages: how many; slot: the first one's slot on `device`."""

    type: ClassVar[str] = "swap_out"

    pages: int
    device: int
    slot: int
    cgroup: str | None = None
    pid: int | None = None
    address: int | None = None


@dataclass(slots=True)
class SwapIn(Event):
    """A run of reads from swap by one process; pages: in all; readahead: those of them that nobody had asked for yet.

    reads: how many faults had to read. slot, address: the first one's.
    """

    type: ClassVar[str] = "swap_in"

    pages: int
    device: int
    slot: int
    readahead: int = 0
    cgroup: str | None = None
    pid: int | None = None
    address: int | None = None
    reads: int = 1


@dataclass(slots=True)
class Writeback(Event):
    """Dirty page cache written to its file. why: `sync` (fsync, msync), `background`, `periodic`, `reclaim`."""

    type: ClassVar[str] = "writeback"

    path: str
    pages: int
    why: str
    pid: int | None = None


@dataclass(slots=True)
class BalanceDirty(Event):
    """A writer sleeps because too much is dirty (tracepoint writeback:balance_dirty_pages).

    dirty, thresh, background: of the machine or of the writer's cgroup, whichever is nearer to its limit, in pages. ratelimit: pages
    a second that it may dirty now. pause_ns: how long it sleeps.
    """

    type: ClassVar[str] = "balance_dirty"

    pid: int
    dirty: int
    thresh: int
    background: int
    ratelimit: int
    pause_ns: int
    cgroup: str | None = None


@dataclass(slots=True)
class Refault(Event):
    """Pages that came back soon after their eviction (mm/workingset.c). distance: of the first, in evictions.

    activated: those whose reuse distance fits the memory, put on the active list at once. restored: those that had
    been active before.
    """

    type: ClassVar[str] = "refault"

    kind: str
    pages: int
    distance: int
    activated: int
    restored: int = 0
    cgroup: str | None = None
    pid: int | None = None


@dataclass(slots=True)
class Watermark(Event):
    """A zone's free pages crossed `level` (min, low, high). free and mark in pages; action: what followed."""

    type: ClassVar[str] = "watermark"

    node: int
    zone: str
    level: str
    free: int
    mark: int
    action: str


@dataclass(slots=True)
class Oom(Event):
    """The OOM killer chose (mm/oom_kill.c). `text` is what went to the kernel log.

    pid: the task that could not go on. constraint: CONSTRAINT_NONE, _CPUSET, _MEMORY_POLICY or _MEMCG; cgroup: the
    one whose limit was hit, for _MEMCG. candidates: every task looked at, in order, each with the terms of its badness
    in pages: {pid, comm, rss, swap, pgtables, adj, points}; points is absent for a task that may not be killed.
    victim: the chosen pid, absent if none could be. killed: every pid that died for it.
    """

    type: ClassVar[str] = "oom"

    pid: int | None
    constraint: str
    totalpages: int
    candidates: list[dict[str, Any]]
    victim: int | None
    killed: list[int]
    text: str
    cgroup: str | None = None


@dataclass(slots=True)
class OomReap(Event):
    """A victim's private memory came back. by: `exit` (it died by itself) or `oom_reaper`. Sizes in pages."""

    type: ClassVar[str] = "oom_reap"

    pid: int
    comm: str
    by: str
    freed: int
    anon_rss: int = 0
    file_rss: int = 0
    shmem_rss: int = 0


@dataclass(slots=True)
class Memcg(Event):
    """A cgroup's limit acted. kind: the key of memory.events (`low high max oom oom_kill oom_group_kill`) or
    `throttle`, with the delay in ns. usage and limit in bytes."""

    type: ClassVar[str] = "memcg"

    cgroup: str
    kind: str
    usage: int
    limit: int | None = None
    pid: int | None = None
    delay_ns: int | None = None


@dataclass(slots=True)
class Thp(Event):
    """Huge pages. kind: `alloc`, `fallback` (base pages instead; why in `reason`), `split`, `collapse`."""

    type: ClassVar[str] = "thp"

    kind: str
    pages: int
    pid: int | None = None
    address: int | None = None
    reason: str | None = None
    cgroup: str | None = None


@dataclass(slots=True)
class Compact(Event):
    """One compaction of a zone: pages scanned, moved, and the order wanted. result as in trace/events/mmflags.h."""

    type: ClassVar[str] = "compact"

    node: int
    zone: str
    order: int
    by: str
    migrate_scanned: int
    free_scanned: int
    migrated: int
    result: str


@dataclass(slots=True)
class Ksm(Event):
    """ksmd went over pages. kind: `merge`, `unmerge`, `scan` (a full round ended)."""

    type: ClassVar[str] = "ksm"

    kind: str
    pages: int
    pages_shared: int
    pages_sharing: int
    pid: int | None = None


@dataclass(slots=True)
class NumaMigrate(Event):
    """Pages moved between nodes. reason: `numa_misplaced`, `syscall_or_cpuset`, `mempolicy_mbind`."""

    type: ClassVar[str] = "numa_migrate"

    pid: int | None
    pages: int
    source: int
    target: int
    reason: str


@dataclass(slots=True)
class SchedMoveNuma(Event):
    """NUMA balancing moved a task to the node where its memory is."""

    type: ClassVar[str] = "sched_move_numa"

    pid: int
    source_cpu: int
    source: int
    target_cpu: int
    target: int


@dataclass(slots=True)
class Psi(Event):
    """A pressure trigger fired: `stall_us` of `some` or `full` stall within its window. resource: `memory`, `io` or `cpu`."""

    type: ClassVar[str] = "psi"

    kind: str
    stall_us: int
    threshold_us: int
    window_us: int
    cgroup: str | None = None
    resource: str = "memory"


@dataclass(slots=True)
class Process(Event):
    """A process began, changed or ended. kind: `spawn`, `fork`, `exec`, `exit`, `signal`, `reap`.

    child: the pid that a fork made. signal: the name of the signal that came (kind `signal`) or ended it (`exit`).
    code: exit status, for an exit that the program itself asked for.
    """

    type: ClassVar[str] = "process"

    kind: str
    pid: int
    comm: str
    cgroup: str | None = None
    child: int | None = None
    signal: str | None = None
    code: int | None = None


@dataclass(slots=True)
class ProgramStep(Event):
    """A program that runs by itself. kind: `start`, `stop` (taken away), `error` (the kernel refused a step).

    step: its place in the program's code; op and errno: what was refused, and how. Its end is the process's.
    """

    type: ClassVar[str] = "program"

    kind: str
    pid: int
    name: str
    step: int
    op: str | None = None
    errno: str | None = None
    cgroup: str | None = None


@dataclass(slots=True)
class Vmstat(Event):
    """A line of vmstat(8), once a simulated second while programs run, or as often as the operation `vmstat` says.

    line: its text. columns: its values by vmstat's own names. faults: minor and major faults of each process since the last line, by pid.
    """

    type: ClassVar[str] = "vmstat"

    line: str
    columns: dict[str, int]
    faults: dict[str, list[int]]


@dataclass(slots=True)
class VmaChange(Event):
    """Mappings of a process changed. kind: `map`, `unmap`, `merge`, `split`, `protect`, `move`, `brk`, `grow` (stack).

    start and end: the range that the call named. vmas: mappings of the process afterwards.
    """

    type: ClassVar[str] = "vma"

    pid: int
    kind: str
    start: int
    end: int
    vmas: int
    prot: str | None = None
    name: str | None = None
    old_address: int | None = None


EVENTS: dict[str, type[Event]] = {
    "fault": Fault,
    "reclaim": Reclaim,
    "swap_out": SwapOut,
    "swap_in": SwapIn,
    "writeback": Writeback,
    "balance_dirty": BalanceDirty,
    "refault": Refault,
    "watermark": Watermark,
    "oom": Oom,
    "oom_reap": OomReap,
    "memcg": Memcg,
    "thp": Thp,
    "compact": Compact,
    "ksm": Ksm,
    "numa_migrate": NumaMigrate,
    "sched_move_numa": SchedMoveNuma,
    "psi": Psi,
    "process": Process,
    "program": ProgramStep,
    "vmstat": Vmstat,
    "vma": VmaChange,
}

_KINDS: list[type[Event]] = [Event, *EVENTS.values()]
_NAMES = {kind: tuple(field.name for field in fields(kind)) for kind in _KINDS}


def from_dict(row: dict[str, Any]) -> Event:
    """The event that `to_dict` gave; members that it does not have (a host's) are passed over."""
    kind = EVENTS[row["type"]]
    return kind(**{name: _integers(row[name]) if name in ADDRESSES else row[name] for name in _NAMES[kind] if name in row})


def _integers(value: Any) -> Any:
    """What `hexadecimal` wrote."""
    return [_integers(item) for item in value] if isinstance(value, list) else int(value, 16)
