"""The machine: what is plugged in, and what each mechanism costs in simulated nanoseconds.

`Machine` is frozen and complete: the same machine, seed and calls give the same bytes anywhere. `Costs` holds
every constant of time with its source; none is measured at run time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from core import cmdline, sysctl

PAGE = 4096
SUFFIX = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
MIN_MEMORY = 64 << 20
MAX_MEMORY = 1 << 40
MAX_NODES = 8
MAX_CPUS = 64
THP_MODES = ("always", "madvise", "never")
SWAP_KINDS = ("disk", "ssd", "nvme", "zram", "virtio")
ROTATIONAL = ("disk", "virtio")  # as Linux sees them: QEMU's virtio disk does not say that it does not rotate
CGROUP_MOUNT = ("memory_localevents", "memory_recursiveprot")  # mount options of cgroup2; systemd mounts it with memory_recursiveprot
STORAGE_KINDS = ("disk", "ssd", "nvme")
RECLAIM_POLICIES = ("classic", "mglru", "fifo", "clock", "random", "lru", "client")  # the rows of mm/policy.POLICIES, in their order

# One request of 4 KiB and the streaming rate, by kind (typical data-sheet values: 7,200 rpm disk, SATA SSD, NVMe).
STORAGE_NS: dict[str, tuple[int, int]] = {
    "disk": (8_000_000, 150_000_000),
    "ssd": (100_000, 500_000_000),
    "nvme": (20_000, 3_000_000_000),
    "zram": (3_000, 2_000_000_000),
    "virtio": (100_000, 500_000_000),  # a virtual disk on an SSD; the guest takes it for one that rotates
}

# The default translation caches (a Skylake-era core): entries and ways by level and page size, the page-walk caches, cycles of a walk through
# all four levels and of a level-2 hit, and whether the processor has PCIDs (without them every context switch empties the TLB).
TLB = (("l1_4k", 64), ("l1_2m", 32), ("l2", 1536), ("miss_cycles", 60), ("l1_4k_ways", 4), ("l1_2m_ways", 4), ("l2_ways", 12),
       ("pde", 32), ("pde_ways", 4), ("pdpte", 4), ("pml4e", 4), ("l2_cycles", 7), ("pcid", 1))  # fmt: skip
TLB_WAYS = {"l1_4k": "l1_4k_ways", "l1_2m": "l1_2m_ways", "l2": "l2_ways", "pde": "pde_ways", "pdpte": "pdpte", "pml4e": "pml4e"}
MAX_WAYS = 32


ZRAM_RATIO = 300  # hundredths: lzo-rle on the memory of ordinary programs makes pages two to four times smaller


def parse_size(value: object, what: str) -> int:
    """Bytes from an int or "512M" with the kernel's binary suffixes; ValueError in plain words."""
    if isinstance(value, bool):
        raise ValueError(f'{what} must be a size such as 536870912 or "512M", not {value!r}')
    if isinstance(value, int):
        size = value
    elif isinstance(value, str) and (match := re.fullmatch(r"(\d{1,20})([KMGT]?)(?:i?B)?", value.strip(), re.I)):
        size = int(match[1]) << SUFFIX[match[2].upper()]
    else:
        raise ValueError(f'{what} must be a size such as 536870912 or "512M", not {value!r}')
    if not 0 <= size < 1 << 63:
        raise ValueError(f"{what} is out of range: {value!r}")
    return size


@dataclass(frozen=True, slots=True)
class SwapDevice:
    """One swap area: bytes, priority (None: the kernel assigns -2, -3, …), kind of storage; zram: how many times smaller pages get, in hundredths."""

    size: int
    priority: int | None = None
    kind: str = "virtio"
    ratio: int = ZRAM_RATIO

    def to_dict(self) -> dict[str, Any]:
        """As it is given; only zram has a ratio."""
        given = asdict(self)
        given["ratio"] /= 100
        return {name: value for name, value in given.items() if name != "ratio" or self.kind == "zram"}


@dataclass(frozen=True, slots=True)
class Storage:
    """The disk that holds files: latency of one request in ns, bandwidth in bytes per second, block size in bytes.

    `block_size` 1024 is what mke2fs chooses for a file system below 512 MiB; a dirty page then carries four
    buffer heads.
    """

    kind: str = "ssd"
    latency_ns: int = 100_000
    bandwidth: int = 500_000_000
    block_size: int = 1024

    @property
    def buffers(self) -> int:
        """Buffer heads of one page."""
        return PAGE // self.block_size


@dataclass(frozen=True, slots=True)
class Costs:
    """Simulated nanoseconds per mechanism. Source: `benchmarks/kernel` on one 2020s server, rounded, unless said."""

    syscall: int = 150  # entry and exit, getppid
    access: int = 2  # a load or store that hits (documentation: a few cycles)
    fault: int = 550  # trap, VMA and page-table work of any fault: half of a bare-metal minor fault
    zero_page: int = 100  # map the shared zero page
    clear_page: int = 250  # zero 4 KiB
    clear_huge_page: int = 100_000  # zero 2 MiB
    copy_page: int = 400  # copy 4 KiB
    reuse: int = 150
    map_file: int = 60  # one page mapped by fault-around
    page_cache: int = 300  # look up and copy one cached page in read(2)
    vma: int = 1_000  # find, split, merge, insert one mapping
    fork: int = 50_000  # task structures, without page tables
    fork_pte: int = 20  # copy one entry
    zap_pte: int = 60  # unmap and free one page
    protect_pte: int = 15
    exit: int = 20_000
    scan_page: int = 400  # look at one page of an LRU list
    ksm_page: int = 1_000  # ksmd looks at one page: xxhash of 4 KiB at 10 GB/s, a comparison or two (documentation of mm/ksm.c: rates)
    ksm_round: int = 10_000  # and wakes up for a round
    swap_out: int = 5_000  # hand one page to the swap device
    compact_scan: int = 15  # compaction looks at one frame (a row of mem_map and its buddy)
    migrate_page: int = 1_500  # move one page: rmap, copy, remap, without flushing other CPUs (perf figures of move_pages, about 1-2 us)
    context_switch: int = 1_500  # one task gives its processor to another
    invlpg: int = 100  # forget one page: "each single flush is about 100 ns" (arch/x86/mm/tlb.c)
    tlb_flush: int = 200  # forget an ASID: a write to CR3
    ipi: int = 2_000  # interrupt another CPU and wait for it (published measurements of shootdowns: 1 to 6 us)
    oom_kill: int = 2_000_000  # selection, report and the victim's exit
    oom_look: int = 240  # find that the last victim has not died yet: four looks in the time of 16 pages' unmapping, as recorded


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine by its parts. `memory` has one size in bytes per node."""

    memory: tuple[int, ...] = (512 << 20,)
    swap: tuple[SwapDevice, ...] = ()
    cpus: int = 2
    transparent_hugepage: str = "madvise"
    storage: Storage = field(default_factory=Storage)
    tlb: tuple[tuple[str, int], ...] = TLB
    sysctl: tuple[tuple[str, int | str], ...] = ()
    reclaim_policy: str = "classic"
    distances: tuple[tuple[int, ...], ...] = ((10,),)
    cgroup_mount: tuple[str, ...] = ()
    cmdline: cmdline.Parameters = ()
    preset: str | None = None

    @property
    def nodes(self) -> int:
        """Number of NUMA nodes."""
        return len(self.memory)

    @property
    def total(self) -> int:
        """Installed memory of all nodes, bytes."""
        return sum(self.memory)

    @property
    def psi(self) -> bool:
        """Is stall information there (psi=)?"""
        return cmdline.is_on(self.cmdline, "psi")

    @property
    def swapaccount(self) -> bool:
        """Is swap charged to cgroups (swapaccount=)?"""
        return cmdline.is_on(self.cmdline, "swapaccount")

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Machine:
        """A machine from the API's `machine` object; ValueError says what was wrong and what would be right."""
        given = dict(given)
        name = given.pop("preset", None)
        if name is not None and (not isinstance(name, str) or name not in PRESETS):
            raise ValueError(f"machine.preset: no such preset {name!r}; there are {', '.join(PRESETS)}")
        merged = {**(PRESETS[name] if name else {}), **given}
        unknown = set(merged) - set(_FIELDS)
        if unknown:
            raise ValueError(f"machine: unknown field {sorted(unknown)[0]!r}; known are {', '.join(_FIELDS)}")
        memory = _memory(merged.get("memory", "512M"), _int(merged.get("nodes", 0), "machine.nodes", 0, MAX_NODES))
        parameters = cmdline.parse(merged.get("cmdline", ""))
        thp = _choice(merged.get("transparent_hugepage", "madvise"), "machine.transparent_hugepage", THP_MODES)
        said = cmdline.value_of(parameters, "transparent_hugepage", thp)
        if "transparent_hugepage" in given and said != thp:
            raise ValueError(f"machine.transparent_hugepage is {thp}, machine.cmdline says {said}: say it once")
        return cls(
            memory=memory,
            swap=_swap(merged.get("swap", "0")),
            cpus=_int(merged.get("cpus", 2), "machine.cpus", 1, MAX_CPUS),
            transparent_hugepage=said,
            storage=_storage(merged.get("storage", {})),
            tlb=_tlb(merged.get("tlb", {})),
            sysctl=_sysctl(merged.get("sysctl", {})),
            distances=_distances(merged.get("distances"), len(memory)),
            reclaim_policy=_policy(merged.get("reclaim_policy", "classic")),
            cgroup_mount=_options(merged.get("cgroup_mount", []), "machine.cgroup_mount", CGROUP_MOUNT),
            cmdline=parameters,
            preset=name,
        )

    def to_dict(self) -> dict[str, Any]:
        """The resolved machine: sizes in bytes, defaults filled in."""
        return {
            "memory": self.memory[0] if self.nodes == 1 else list(self.memory),
            "swap": [device.to_dict() for device in self.swap],
            "nodes": self.nodes,
            "cpus": self.cpus,
            "transparent_hugepage": self.transparent_hugepage,
            "storage": asdict(self.storage),
            "tlb": dict(self.tlb),
            "sysctl": dict(self.sysctl),
            "reclaim_policy": self.reclaim_policy,
            "distances": [list(row) for row in self.distances],
            "cgroup_mount": list(self.cgroup_mount),
            "cmdline": " ".join(f"{name}={value}" if value else name for name, value in self.cmdline),
            "preset": self.preset,
        }


_FIELDS = ("memory", "swap", "nodes", "cpus", "transparent_hugepage", "storage", "tlb", "sysctl", "reclaim_policy", "cgroup_mount", "distances",
           "cmdline", "preset")  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "laptop": {"memory": "8G", "swap": "2G", "cpus": 4, "transparent_hugepage": "madvise"},
    "db-server": {"memory": "64G", "swap": "8G", "cpus": 16, "transparent_hugepage": "never"},
    "numa-2s": {"memory": ["16G", "16G"], "nodes": 2, "cpus": 8},
    "oracle": {"memory": "512M", "swap": "256M", "cpus": 2, "transparent_hugepage": "never"},
}


def _int(value: object, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{what} must be an integer from {low} to {high}, not {value!r}")
    return value


def _choice(value: object, what: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, not {value!r}")
    return str(value)


def _policy(value: object) -> str:
    """A reclaim policy that a machine can begin with."""
    if value == "opt":
        raise ValueError("machine.reclaim_policy: opt must know every access that is to come, and no kernel does; ask a replay for it")
    if value == "client":
        raise ValueError("machine.reclaim_policy: a client takes over when it connects to the session's websocket /policy; begin with another policy")
    return _choice(value, "machine.reclaim_policy", RECLAIM_POLICIES[:-1])


def _options(value: object, what: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """A list of some of the choices, in their order."""
    if not isinstance(value, list) or any(one not in choices for one in value):
        raise ValueError(f"{what} must be a list of some of {', '.join(choices)}, not {value!r}")
    return tuple(choice for choice in choices if choice in value)


def _object(value: object, what: str, known: tuple[str, ...] | None) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be an object, not {value!r}")
    if known is not None and (unknown := set(value) - set(known)):
        raise ValueError(f"{what}: unknown field {sorted(unknown)[0]!r}; known are {', '.join(known)}")
    return dict(value)


def _memory(value: object, nodes: int) -> tuple[int, ...]:
    if isinstance(value, list):
        sizes = tuple(parse_size(one, "machine.memory") for one in value)
        if nodes and nodes != len(sizes):
            raise ValueError(f"machine.nodes is {nodes} but machine.memory lists {len(sizes)} sizes")
        if not 1 <= len(sizes) <= MAX_NODES:
            raise ValueError(f"machine.memory must list 1 to {MAX_NODES} sizes")
    else:
        total, count = parse_size(value, "machine.memory"), nodes or 1
        sizes = tuple(total // count for _ in range(count))
    for size in sizes:
        if size % (4 << 20):
            raise ValueError(f"machine.memory: a node's size must be a multiple of 4M, not {size} bytes")
        if size < MIN_MEMORY:
            raise ValueError(f"machine.memory: a node needs at least {MIN_MEMORY >> 20}M, not {size} bytes")
    if sum(sizes) > MAX_MEMORY:
        raise ValueError(f"machine.memory: at most {MAX_MEMORY >> 40}T, not {sum(sizes)} bytes")
    return sizes


def _distances(value: object, nodes: int) -> tuple[tuple[int, ...], ...]:
    """A row a node; left out: 10 to itself, 20 to any other."""
    if value is None:
        return tuple(tuple(10 if a == b else 20 for b in range(nodes)) for a in range(nodes))
    if not isinstance(value, list) or len(value) != nodes or not all(isinstance(row, list) and len(row) == nodes for row in value):
        raise ValueError(f"machine.distances must have {nodes} rows of {nodes} numbers, from each node to each node")
    rows = tuple(tuple(_int(one, "machine.distances", 10, 254) for one in row) for row in value)
    for a, row in enumerate(rows):
        if row[a] != 10 or any(one == 10 for b, one in enumerate(row) if b != a):
            raise ValueError("machine.distances: a node is at 10 from itself and further from any other")
    return rows


def _swap(value: object) -> tuple[SwapDevice, ...]:
    if not isinstance(value, list):
        size = parse_size(value, "machine.swap")
        return (_device({"size": size}),) if size else ()
    if len(value) > 29:
        raise ValueError("machine.swap: at most 29 devices")
    return tuple(_device(_object(one, "machine.swap", ("size", "priority", "kind", "ratio"))) for one in value)


def _device(given: dict[str, Any]) -> SwapDevice:
    size = parse_size(given.get("size", 0), "machine.swap.size")
    if not 2 * PAGE <= size <= MAX_MEMORY:
        raise ValueError(f"machine.swap.size must be from 8K to 1T, not {given.get('size')!r}")
    priority = given.get("priority")
    if priority is not None:
        priority = _int(priority, "machine.swap.priority", 0, 32767)
    kind = _choice(given.get("kind", "virtio"), "machine.swap.kind", SWAP_KINDS)
    return SwapDevice(size, priority, kind, _ratio(given, kind))


def _ratio(given: dict[str, Any], kind: str) -> int:
    ratio = given.get("ratio", ZRAM_RATIO / 100)
    if "ratio" in given and kind != "zram":
        raise ValueError("machine.swap.ratio: only zram compresses")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 1 <= ratio <= 100:
        raise ValueError(f"machine.swap.ratio must be a number from 1 to 100, not {ratio!r}")
    return round(ratio * 100)


def _storage(value: object) -> Storage:
    given = _object(value, "machine.storage", ("kind", "latency_ns", "bandwidth", "block_size"))
    kind = _choice(given.get("kind", "ssd"), "machine.storage.kind", STORAGE_KINDS)
    latency, bandwidth = STORAGE_NS[kind]
    latency = _int(given.get("latency_ns", latency), "machine.storage.latency_ns", 0, 10**10)
    bandwidth = _int(given.get("bandwidth", bandwidth), "machine.storage.bandwidth", 1, 10**13)
    block = _int(given.get("block_size", 1024), "machine.storage.block_size", 1024, 4096)
    if block & (block - 1):
        raise ValueError("machine.storage.block_size must be 1024, 2048 or 4096")
    return Storage(kind, latency, bandwidth, block)


def _tlb(value: object) -> tuple[tuple[str, int], ...]:
    known = dict(TLB)
    given = _object(value, "machine.tlb", tuple(known))
    got = {name: _int(given.get(name, default), f"machine.tlb.{name}", *TLB_LIMITS.get(name, (1, 1 << 20))) for name, default in known.items()}
    for name, ways in TLB_WAYS.items():
        if ways in given or ways == name:
            _check_sets(name, got[name], got[ways])
        else:
            got[ways] = _fitting_ways(name, got[name], got[ways])
    return tuple(got.items())


TLB_LIMITS = {"pdpte": (1, MAX_WAYS), "pml4e": (1, MAX_WAYS), "l1_4k_ways": (1, MAX_WAYS), "l1_2m_ways": (1, MAX_WAYS), "l2_ways": (1, MAX_WAYS),
              "pde_ways": (1, MAX_WAYS), "miss_cycles": (0, 1 << 20), "l2_cycles": (0, 1 << 20), "pcid": (0, 1)}  # fmt: skip


def _sets(entries: int, ways: int) -> int:
    """How many sets that makes, 0 if it is no number that address bits can choose from."""
    sets = entries // ways
    return sets if sets * ways == entries and sets & (sets - 1) == 0 else 0


def _check_sets(name: str, entries: int, ways: int) -> None:
    if not _sets(entries, ways):
        raise ValueError(f"machine.tlb.{name}: {entries} entries in sets of {ways} is no power of two of sets, which address bits could choose from")


def _fitting_ways(name: str, entries: int, usual: int) -> int:
    """The ways nearest to the usual number that make a power of two of sets."""
    fitting = [ways for ways in range(1, MAX_WAYS + 1) if _sets(entries, ways)]
    if not fitting:
        raise ValueError(f"machine.tlb.{name}: {entries} entries cannot be a power of two of sets of at most {MAX_WAYS}; 1024 or 1536 could")
    return min(fitting, key=lambda ways: (abs(ways - usual), ways))


def _sysctl(value: object) -> tuple[tuple[str, int | str], ...]:
    given = _object(value, "machine.sysctl", None)
    for name, setting in given.items():
        sysctl.check(str(name), setting)
    return tuple(sorted(given.items()))
