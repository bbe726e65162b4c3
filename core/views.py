"""Structured views of a machine: what a web page draws or a student asks for, read-only.

Values are ints, strings, booleans, lists and dicts; sizes in bytes, times in ns. Integers under a key that is `address` or ends
in `_address`, `start` or `end` are addresses (the service prints them in hexadecimal).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core import monitor, verify
from core.abi.mman import (
    PMD_PAGES,
    TASK_SIZE,
    VM_EXEC,
    VM_FLAG_LETTERS,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)
from core.abi.page_flags import (
    KPAGEFLAGS,
    PG_ACTIVE,
    PG_ANON,
    PG_ANON_EXCLUSIVE,
    PG_HEAD,
    PG_KSM,
    PG_LRU,
    PG_SHMEM,
    PG_SWAPBACKED,
    PG_TAIL,
    PG_UNEVICTABLE,
)
from core.explain.charge import explain_charge
from core.explain.hugetlb import explain_hugetlb
from core.explain.ksm import explain_ksm
from core.explain.node import explain_node
from core.explain.oom import explain_oom
from core.explain.psi import explain_psi
from core.explain.reclaim import explain_reclaim
from core.explain.thp import explain_thp
from core.explain.tlb import explain_tlb
from core.fs import proc_pid
from core.machine import RECLAIM_POLICIES
from core.mm import huge_memory, hugetlb, hugetlb_fault, lru_gen, memcontrol, memory, mempolicy, mmzone, pgtable, smaps, tlb
from core.mm import vma as vmas_of
from core.mm.fault import V_ANON, V_FILE
from core.mm.mm_types import (
    CTL_HUGE_ZERO,
    CTL_POLICY,
    CTL_ZERO_PFN,
    MM_SWAPENTS,
    PAGE_COUNTER_MAX,
    WMARK_HIGH,
    WMARK_LOW,
    WMARK_MIN,
    ZONE_NAMES,
    get_mm_counters,
)
from core.mm.pgtable import (
    LEVELS,
    PFN_MASK,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_PRESENT,
    PTE_PROTNONE,
    PTE_PS,
    PTE_RW,
    PTE_SOFT_DIRTY,
    PTE_SPECIAL,
    PTE_US,
)
from core.mm.util import total_swap_pages, totalram_pages
from core.sched import task as sched

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.mm.mm_types import Mm, Vma
    from core.programs.program import Program
    from core.sched.task import Task

U64 = (1 << 64) - 1


# ---------------------------------------------------------------- processes


def processes(k: Kernel) -> list[dict[str, Any]]:
    """Every process, in the order of their creation."""
    return [_process(k, task) for task in k.tasks.values()]


def process(k: Kernel, pid: int) -> dict[str, Any]:
    """One process; LookupError if there is none."""
    return _process(k, sched.find_task(k, pid))


def _process(k: Kernel, task: Task) -> dict[str, Any]:
    rss = get_mm_counters(k.s, task.mm) if task.mm else [0, 0, 0, 0]
    swap = int(rss[MM_SWAPENTS])
    return {
        "pid": task.pid,
        "ppid": task.ppid,
        "comm": task.comm,
        "state": task.state,
        "cgroup": task.cgroup.path,
        "rss_bytes": (int(sum(rss)) - swap) * 4096,
        "vsize_bytes": sched.vsize(task),
        "swap_bytes": swap * 4096,
        "minflt": task.minflt,
        "majflt": task.majflt,
        "oom_score": int(proc_pid.oom_score(k, task)),
        "oom_score_adj": task.oom_score_adj,
        "threads": 1,
        "cpu": task.cpu,
        "utime_ns": task.utime_ns,
        "stime_ns": task.stime_ns,
        "program": _program(task.program) if task.program is not None else None,
    }


def _program(program: Program) -> dict[str, Any]:
    """Where a program is: the step at hand (its place in `code`), and how many it has begun."""
    step = program.code[program.pc] if program.pc < len(program.code) else None
    return {
        "name": program.name,
        "step": program.pc,
        "op": step["op"] if step else None,
        "steps_begun": program.steps,
        "regions": [{"name": name, "address": address, "length": length} for name, (address, length) in program.regions.items()],
        "at_end": program.at_end,
    }


def vmas(k: Kernel, pid: int) -> list[dict[str, Any]]:
    """The mappings of a process, in address order."""
    task = sched.find_task(k, pid)
    return [_vma(k, task, vma) for vma in task.mm.vmas] if task.mm else []


def _vma(k: Kernel, task: Task, vma: Vma) -> dict[str, Any]:
    seen = smaps.account(k, vma)
    policy = mempolicy.policy_of(task, vma)
    return {
        "start": vma.start << 12,
        "end": vma.end << 12,
        "prot": prot_text(vma.flags),
        "flags": flag_letters(vma.flags),
        "offset": vma.pgoff << 12 if vma.file else 0,
        "name": proc_pid.vma_name(task.mm, vma) if task.mm else "",
        "rss_bytes": int(seen["Rss"]),
        "swap_bytes": int(seen["Swap"]),
        "policy": policy.mode if policy else "default",
    }


def prot_text(flags: int) -> str:
    """rwx with p or s, as /proc/<pid>/maps."""
    letters = "".join(letter if flags & bit else "-" for bit, letter in ((VM_READ, "r"), (VM_WRITE, "w"), (VM_EXEC, "x")))
    return letters + ("s" if flags & VM_SHARED else "p")


def flag_letters(flags: int) -> list[str]:
    """The VmFlags of smaps."""
    return [letters for bit, letters in VM_FLAG_LETTERS.items() if flags & bit]


# ---------------------------------------------------------------- the page walk


def walk(k: Kernel, pid: int, address: int) -> dict[str, Any]:
    """The 4-level walk of one address, level by level, and what an access there would do.

    LookupError for an unknown process; an address that is not canonical user space is answered, not refused: the
    processor refuses it.
    """
    task = sched.find_task(k, pid)
    answer: dict[str, Any] = {
        "address": address,
        "binary": binary(address),
        "canonical": address < 1 << 47 or address >= U64 + 1 - (1 << 47),
        "page_address": address & ~0xFFF,
        "offset": address & 0xFFF,
        "levels": [],
        "present": False,
        "frame": None,
        "vma": None,
    }
    vpn = address >> 12
    if task.mm is not None and address < TASK_SIZE:
        answer["levels"] = levels(k, task.mm, vpn)
        last = answer["levels"][-1]
        leaf = last["level"] == "pte" or last["bits"]["huge"]
        answer["present"] = leaf and bool(last["bits"]["present"] or last["bits"]["protnone"])
        if answer["present"]:
            pfn = last["pfn"] + (vpn & (1 << LEVEL_SHIFT[last["level"]]) - 1)  # of a huge entry: the frame within its page
            answer["frame"] = frame(k, pfn)
            answer["physical"] = pfn * 4096 + (address & 0xFFF)
        vma = vmas_of.vma_lookup(task.mm, vpn)
        answer["vma"] = _vma(k, task, vma) if vma else None
    answer["tlb"] = tlb_finds(k, task, vpn, answer) if answer["present"] else None
    answer["read"] = outcome(k, task, address, memory.READ, answer)
    answer["write"] = outcome(k, task, address, memory.WRITE, answer)
    return answer


def tlb_finds(k: Kernel, task: Task, vpn: int, walked: dict[str, Any]) -> dict[str, Any]:
    """What the TLB of the process's CPU holds for a page that is mapped: which level has it, or what the walk would fetch."""
    assert task.mm is not None
    return tlb.probe(k, task.cpu, task.mm, vpn, walked["levels"][-1]["level"] != "pte")


def binary(address: int) -> str:
    """The 64 bits as the processor splits them: sign extension, pgd, pud, pmd, pte, offset."""
    bits = f"{address & U64:064b}"
    return " ".join((bits[:16], bits[16:25], bits[25:34], bits[34:43], bits[43:52], bits[52:]))


LEVEL_SHIFT = dict(zip(LEVELS, (27, 18, 9, 0), strict=True))  # log2 of the pages that one entry covers


def levels(k: Kernel, mm: Mm, vpn: int) -> list[dict[str, Any]]:
    """One entry a level, down to the first that is empty. `table_pfn`: the frame of the table (of the pgd: CR3)."""
    steps = []
    table_pfn, table = mm.pgd_pfn, int(k.s.mms["pgd"][mm.id])
    for name, shift in LEVEL_SHIFT.items():
        index = (vpn >> shift) & 511
        entry = int(k.s.pt[table, index])
        pfn = (entry & PFN_MASK) >> 12
        steps.append({
            "level": name, "index": index, "table_pfn": table_pfn, "entry": hex(entry & U64),
            "pfn": pfn if entry & PTE_PRESENT else None, "bits": decoded(entry, name == "pte"),
        })  # fmt: skip
        if name == "pte" or entry & PTE_PRESENT == 0 or entry & PTE_PS:
            break
        table_pfn, table = pfn, int(k.s.mem["private"][pfn])
    return steps


def decoded(entry: int, leaf: bool) -> dict[str, bool]:
    """The bits of an entry by name."""
    return {
        "present": bool(entry & PTE_P),
        "writable": bool(entry & PTE_RW),
        "user": bool(entry & PTE_US),
        "accessed": bool(entry & PTE_A),
        "dirty": bool(entry & PTE_D),
        "huge": bool(entry & PTE_PS) and not leaf,
        "protnone": bool(entry & PTE_PROTNONE) and not entry & PTE_P,
        "special": bool(entry & PTE_SPECIAL),
        "soft_dirty": bool(entry & PTE_SOFT_DIRTY),
        "no_execute": entry < 0,
    }


def frame(k: Kernel, pfn: int) -> dict[str, Any]:
    """What mem_map knows of a frame."""
    page, own = k.s.mem[pfn], int(k.s.mem["flags"][pfn])
    head = int(page["private"]) if own & PG_TAIL else pfn
    compound = bool(own & (PG_HEAD | PG_TAIL))
    page, flags = k.s.mem[head], own | int(k.s.mem["flags"][head]) & ~(PG_HEAD if head != pfn else 0)
    owner = k.cgroups.get(int(page["memcg"]))
    return {
        "pfn": pfn,
        "zero_page": head in (int(k.s.ctl[CTL_ZERO_PFN]), int(k.s.ctl[CTL_HUGE_ZERO]) or -1),
        "refcount": int(page["refcount"]),
        "mapcount": int(k.s.mem["mapcount"][pfn]) + (int(k.s.mem["index"][head + 1]) if compound else 0),
        "compound": {"head": head, "order": int(k.s.mem["next"][head + 1]), "mapcount": int(k.s.mem["index"][head + 1])} if compound else None,
        "anon": bool(flags & PG_ANON),
        "exclusive": bool(flags & PG_ANON_EXCLUSIVE),
        "shmem": bool(flags & PG_SHMEM),
        "ksm": bool(flags & PG_KSM),
        "kpageflags": [bit for bit, ours in KPAGEFLAGS.items() if flags & ours],
        "cgroup": owner.path if owner else None,
        "lru": place(k, pfn),
    }


def place(k: Kernel, pfn: int) -> dict[str, Any] | None:
    """Where reclaim would come along a frame: its list, or for the multi-gen LRU its generation and tier; None for a frame on no list."""
    flags, policy = int(k.s.mem["flags"][pfn]), RECLAIM_POLICIES[int(k.s.ctl[CTL_POLICY])]
    if not flags & PG_LRU:
        return None
    kind = "anon" if flags & PG_SWAPBACKED else "file"
    if policy == "mglru" and not flags & PG_UNEVICTABLE:
        return {"policy": policy, "type": kind, **lru_gen.describe(k, pfn)}
    name = "unevictable" if flags & PG_UNEVICTABLE else f"{'active' if flags & PG_ACTIVE else 'inactive'}_{kind}"
    return {"policy": policy, "list": name} | ({"stamp": int(k.s.stamps[pfn])} if k.s.stamps[pfn] else {})


def outcome(k: Kernel, task: Task, address: int, access: int, seen: dict[str, Any]) -> dict[str, Any]:
    """What a read or a write would do, in the kernel's own function names."""
    verb = "write" if access == memory.WRITE else "read"
    if not seen["canonical"]:
        return _does("SIGSEGV", f"the {verb} raises #GP: bits 63..47 are not all equal", ["exc_general_protection"])
    path = ["exc_page_fault", "handle_page_fault", "do_user_addr_fault"]
    vma = vmas_of.find_vma(task.mm, address >> 12) if task.mm and address < TASK_SIZE else None
    if vma is None or (vma.start > address >> 12 and not vma.flags & VM_GROWSDOWN):
        return _does("SIGSEGV", "no mapping covers the address (SEGV_MAPERR)", [*path, "bad_area"])
    if vma.start > address >> 12:
        return _does("stack", "below the stack: it grows if the limit and the gap allow", [*path, "expand_stack", "handle_mm_fault"])
    if not memory.permitted(vma, access):
        return _does("SIGSEGV", f"the mapping does not permit a {verb} (SEGV_ACCERR)", [*path, "access_error", "bad_area_access_error"])
    if vma.flags & VM_HUGETLB:
        return _hugetlb(k, task, vma, address, access, seen, [*path, "handle_mm_fault"])
    path = [*path, "handle_mm_fault", "__handle_mm_fault", "handle_pte_fault"]
    if seen["present"]:
        return _present(k, vma, access, seen, path)
    return _absent(k, vma, address, access, path)


def _does(kind: str, why: str, path: list[str]) -> dict[str, Any]:
    return {"outcome": kind, "why": why, "path": path}


def _hugetlb(k: Kernel, task: Task, vma: Vma, address: int, access: int, seen: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """What an access to a mapping of hugetlb would do (hugetlb_fault)."""
    h = hugetlb.hstate_vma(vma)
    page = f"page of {h.size >> 20} MiB"
    if seen["present"]:
        if access == memory.READ or seen["levels"][-1]["bits"]["writable"]:
            return _does("hit", "the entry allows it: no fault", [])
        head = seen["levels"][-1]["pfn"]
        if vma.flags & VM_SHARED or (k.s.mem["flags"][head] & PG_ANON and hugetlb_fault.mapcount(k, head) == 1):
            return _does("minor", f"the {page} is made writable in place", [*path, "hugetlb_fault", "hugetlb_wp"])
        return _does("minor", f"others map the {page}, too: it is copied, or if the pool is empty SIGBUS (unless this is who was promised it)",
                     [*path, "hugetlb_fault", "hugetlb_wp", "alloc_huge_page"])
    path = [*path, "hugetlb_fault", "hugetlb_no_page"]
    if vma.resv_unmapped:
        return _does("SIGBUS", "its parent needed the page: inadequate hugepage pool", path)
    if vma.file is not None and hugetlb.vma_hugecache_offset(h, vma, address >> 12) in vma.file.huge_pages:
        return _does("minor", f"the file has the {page}: it is mapped", path)
    if not hugetlb.vma_needs_reservation(h, vma, address >> 12):
        return _does("minor", f"the mapping was promised a {page}: the pool gives it", [*path, "alloc_huge_page"])
    left = max(h.available, 0) + max(h.nr_overcommit_huge_pages - h.surplus_huge_pages, 0)
    if left:
        return _does("minor", f"nothing was promised, but the pool has a {page} left, or may take one more", [*path, "alloc_huge_page"])
    return _does("SIGBUS", f"nothing was promised, and the pool has no free {page} that nobody else was", [*path, "alloc_huge_page"])


def _present(k: Kernel, vma: Vma, access: int, seen: dict[str, Any], path: list[str]) -> dict[str, Any]:
    bits, page = seen["levels"][-1]["bits"], seen["frame"]
    if access == memory.READ or bits["writable"]:
        return _does("hit", "the entry allows it: no fault", [])
    if bits["huge"]:
        return _present_huge(page, path)
    path = [*path, "do_wp_page"]
    if page["zero_page"]:
        return _does("minor", "the shared zero page is mapped: a zeroed page of one's own takes its place", [*path, "wp_page_copy"])
    if vma.flags & VM_SHARED:
        return _does("minor", "a clean shared page: it is marked dirty and made writable", [*path, "wp_page_shared"])
    if page["ksm"]:
        return _does("minor", "a page that KSM merged: it is copied, even for its last user", [*path, "wp_page_copy"])
    if page["anon"] and (page["exclusive"] or page["refcount"] == 1):
        return _does("minor", "nobody else has the page: it is made writable in place", [*path, "wp_page_reuse"])
    return _does("minor", "others have the page, too: it is copied", [*path, "wp_page_copy"])


def _present_huge(page: dict[str, Any], path: list[str]) -> dict[str, Any]:
    path = [*path[:-1], "wp_huge_pmd", "do_huge_pmd_wp_page"]
    if page["zero_page"]:
        return _does("minor", "the huge zero page: its entry is split, and a zeroed 4 KiB page takes its place here", [*path, "__split_huge_pmd"])
    if page["exclusive"] or page["refcount"] == 1:
        return _does("minor", "nobody else has the huge page: it is made writable in place", path)
    return _does("minor", "others have the huge page, too: its entry is split, and 4 KiB are copied", [*path, "__split_huge_pmd", "wp_page_copy"])


def _absent(k: Kernel, vma: Vma, address: int, access: int, path: list[str]) -> dict[str, Any]:
    kind = memory.vma_kind(vma)
    first = (address >> 12) & -PMD_PAGES
    fits = vma.start <= first and first + PMD_PAGES <= vma.end and not pgtable.pmd_entry(k, vma.mm, first)
    if kind == V_ANON and fits and huge_memory.fault_flags(k, vma):
        path = [*path[:-1], "create_huge_pmd", "do_huge_pmd_anonymous_page"]
        if access == memory.READ and k.thp["use_zero_page"]:
            return _does("minor", "first read: the huge zero page is mapped", path)
        return _does("minor", "first write: a huge page is allocated, or a small one if none is at hand", path)
    if kind == V_ANON:
        if access == memory.READ:
            return _does("minor", "first read: the shared zero page is mapped", [*path, "do_anonymous_page"])
        return _does("minor", "first write: a zeroed page is allocated", [*path, "do_anonymous_page"])
    index = (address >> 12) - vma.start + vma.pgoff
    if vma.file is not None and index >= vma.file.nr_file_pages:
        return _does("SIGBUS", "beyond the end of the file", [*path, "do_fault", "filemap_fault"])
    step = "do_read_fault" if access == memory.READ else "do_shared_fault" if vma.flags & VM_SHARED else "do_cow_fault"
    what = "the page cache has it or the disk is read (major)" if kind == V_FILE else "shared memory: found, or a zeroed page is made"
    return _does("fault", what, [*path, "do_fault", step])


# ---------------------------------------------------------------- the TLB

SHOWN = 64  # entries


def tlb_view(k: Kernel, pid: int) -> dict[str, Any]:
    """What the TLB of a process's CPU holds for it, and what its accesses found there; LookupError for an unknown process.

    counts: over the process's life. held: entries by structure. entries: the 64 used last. processor: the CPU's context switches, flushes and
    shootdowns. flushed: why and when everything of the process was last forgotten.
    """
    task = sched.find_task(k, pid)
    c = k.tlb.cpus[task.cpu]
    entries = tlb.held(k, task.cpu, task.mm) if task.mm is not None else []
    held = dict.fromkeys(tlb.STRUCTURES, 0)
    for entry in entries:
        held[entry["structure"]] += 1
    asid = c.ctxs.index(task.mm.ctx_id) if task.mm is not None and task.mm.ctx_id in c.ctxs else None
    flushed = c.flushed[asid] if asid is not None else None
    return {
        "pid": pid,
        "cpu": task.cpu,
        "asid": asid,
        "counts": tlb.by_name(task.tlb),
        "held": held,
        "entries": entries[:SHOWN],
        "processor": {name: getattr(c, name) for name in ("switches", "switch_flushes", "local_all", "local_one", "ipis_sent", "ipis_received")},
        "geometry": dict(k.machine.tlb),
        "flushed": {"why": flushed[0], "clock_ns": flushed[1]} if flushed is not None else None,
    }


def tlb_reach(k: Kernel, pid: int) -> dict[str, Any]:
    """How much memory each level of the machine's TLB covers, by its entries and measured; LookupError for an unknown process.

    share: of the process's resident memory, 1.0 where all of it is within reach.
    """
    task = sched.find_task(k, pid)
    rss = get_mm_counters(k.s, task.mm) if task.mm else [0, 0, 0, 0]
    resident = (sum(rss) - rss[MM_SWAPENTS]) * 4096
    rows = [{**row, "share": min(1.0, row["reach_bytes"] / resident) if resident else 1.0} for row in tlb.reach(k.machine)]
    return {"pid": pid, "resident_bytes": resident, "rows": rows}


def latency(k: Kernel, pid: int) -> dict[str, Any]:
    """How long a process's latest calls took, and what it stalled over meanwhile; LookupError for an unknown process.

    calls: oldest first, with stall_ns, the part of elapsed_ns that was lost to memory, and fault_ns, the time by faults (None: it had none).
    stalls: one by one, over what. Times in simulated ns.
    """
    sched.find_task(k, pid)
    stalls = [dict(row) for row in k.records.stalls if row["pid"] == pid]
    calls = []
    for row in k.records.calls:
        if row["pid"] != pid:
            continue
        begin, end, faults = row["begin_ns"], row["begin_ns"] + row["elapsed_ns"], row["minor"] + row["major"]
        stalled = sum(stall["end_ns"] - stall["begin_ns"] for stall in stalls if begin <= stall["begin_ns"] and stall["end_ns"] <= end)
        calls.append({**row, "stall_ns": stalled, "fault_ns": row["elapsed_ns"] // faults if faults else None})
    return {"pid": pid, "calls": calls, "stalls": stalls}


# ---------------------------------------------------------------- cgroups


def cgroups(k: Kernel) -> dict[str, Any]:
    """The tree from the root, children within."""
    return _cgroup(k, k.root_cgroup, deep=True)


def cgroup(k: Kernel, path: str) -> dict[str, Any]:
    """One cgroup and the names of its children; LookupError if there is none."""
    group = k.cgroup_at(path)
    if group is None:
        raise LookupError(f"no cgroup {path}")
    return _cgroup(k, group, deep=False)


def _cgroup(k: Kernel, group: Cgroup, *, deep: bool) -> dict[str, Any]:
    row = k.s.memcgs[group.id]
    children = [child for child in group.children.values() if not child.dying]
    return {
        "path": group.path,
        "procs": list(group.pids),
        "subtree_control": sorted(group.subtree_control),
        "memory.current": memcontrol.current(k, group),
        "memory.peak": memcontrol.peak(k, group),
        "memory.min": _limit(group.min),
        "memory.low": _limit(group.low),
        "memory.high": _limit(int(row["high"])),
        "memory.max": _limit(int(row["max"])),
        "memory.swap.max": _limit(group.swap_max),
        "memory.oom.group": int(group.oom_group),
        "memory.events": dict(group.events),
        "memory.stat": memcontrol.stat(k, group),
        "children": [_cgroup(k, child, deep=True) for child in children] if deep else [child.path for child in children],
    }


def _limit(pages: int) -> int | str:
    return "max" if pages >= PAGE_COUNTER_MAX else pages * 4096


# ---------------------------------------------------------------- files and memory


def files(k: Kernel) -> list[dict[str, Any]]:
    """The files of the simulated disk."""
    return [
        {"path": path, "size": inode.size, "cached_bytes": inode.nr_pages * 4096, "dirty_bytes": inode.nr_dirty * 4096}
        for path, inode in sorted(k.files.items())
    ]


def memory_map(k: Kernel) -> dict[str, Any]:
    """Zones with their watermarks and free lists, in pages."""
    return {"zones": [_zone(k, zid) for zid in k.populated], "totalreserve": mmzone.totalreserve_pages(k)}


def _zone(k: Kernel, zid: int) -> dict[str, Any]:
    zone = k.s.zones[zid]
    marks = zone["wmark"]
    return {
        "node": int(zone["node"]),
        "zone": ZONE_NAMES[int(zone["type"])],
        "start_pfn": int(zone["start_pfn"]),
        "present": int(zone["present"]),
        "managed": int(zone["managed"]),
        "free": int(zone["free"]),
        "min": int(marks[WMARK_MIN]),
        "low": int(marks[WMARK_LOW]),
        "high": int(marks[WMARK_HIGH]),
        "lowmem_reserve": [int(pages) for pages in zone["lowmem_reserve"]],
        "free_blocks": [int(blocks) for blocks in zone["nr_free"]],
    }


def installed(k: Kernel) -> tuple[int, int]:
    """Bytes of memory (MemTotal) and of swap."""
    return totalram_pages(k) * 4096, total_swap_pages(k) * 4096


def oom(k: Kernel) -> list[dict[str, Any]]:
    """Every kill of the OOM killer, in order of time."""
    return [dict(row) for row in k.oom_kills]


VIEWS: dict[str, Callable[..., Any]] = {
    "processes": processes,
    "process": process,
    "vmas": vmas,
    "walk": walk,
    "cgroups": cgroups,
    "cgroup": cgroup,
    "files": files,
    "memory": memory_map,
    "audit": verify.audit,
    "explain_oom": explain_oom,
    "vmstat": monitor.vmstat,
    "oom": oom,
    "installed": installed,
    "explain_reclaim": explain_reclaim,
    "explain_charge": explain_charge,
    "explain_psi": explain_psi,
    "explain_ksm": explain_ksm,
    "explain_thp": explain_thp,
    "explain_node": explain_node,
    "explain_hugetlb": explain_hugetlb,
    "explain_tlb": explain_tlb,
    "latency": latency,
    "tlb": tlb_view,
    "tlb_reach": tlb_reach,
}
