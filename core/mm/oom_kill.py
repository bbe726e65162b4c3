"""The OOM killer: when memory cannot be had, one process ends so that the others go on (mm/oom_kill.c).

Who. Every process of the domain — the whole machine, or the subtree of the cgroup whose limit was hit — gets points:

    badness = rss + swap + page tables (pages) + oom_score_adj * (totalpages / 1000)

and the one with the most is killed; among equals the later one. totalpages is RAM + swap of the machine, or the limit
of the cgroup. Worked numbers, 8 GiB without swap: totalpages 2097152, a step of oom_score_adj is 2097 pages (8 MiB);
1 GiB of rss is 262144 points, as much as an adj of 125. Swapped pages count in full, not half.

Never chosen: init, kernel threads, a process without an address space, oom_score_adj -1000. /proc/<pid>/oom_score shows
points as (1000 + points * 1000 / totalpages) * 2/3 of the *machine's* total: an idle process has 666.

What. The kernel log gets a report: who could not go on and where, the state of memory (of the machine, or of the
cgroup), the table of candidates, one line that sums up the decision, one line per process killed. With memory.oom.group
set on a cgroup between the victim and the domain, everybody in that cgroup dies with it, save adj -1000; the first victim
is then met again among the members and counts twice, as in Linux.

Nobody to kill: the machine panics ("System is deadlocked on memory"); a cgroup's charge fails instead.

Here a victim exits at once (the oom_reaper, which takes the memory of one that does not, finds nothing to do), except
that the process whose own call this is dies at the end of it. The report's registers are left out: no instructions
are simulated; its call trace has the kernel's function names without offsets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.abi.mman import PAGE_SIZE
from core.abi.signal import SIGNALS
from core.events import Oom
from core.mm import gfp_types, memcontrol
from core.mm.gfp_types import GFP_HIGHUSER, GFP_PGTABLE_USER
from core.mm.mm_types import MAX_ORDER, MM_ANONPAGES, MM_FILEPAGES, MM_SHMEMPAGES, MM_SWAPENTS, ZONE_NAMES, ZONES_PER_NODE, get_mm_counters
from core.mm.util import total_swap_pages, totalram_pages
from core.panic import TaskKilled
from core.vmstat import EVENT, NODE, ZONE

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.sched.task import Task

OOM_SCORE_ADJ_MIN = -1000
INIT_PID = 1
SIGKILL = SIGNALS["SIGKILL"]

_FAULT = ("__handle_mm_fault", "handle_mm_fault", "do_user_addr_fault", "exc_page_fault", "asm_exc_page_fault")
_SYSCALL = ("do_syscall_64", "entry_SYSCALL_64_after_hwframe")
TRACES: dict[str, tuple[str, ...]] = {
    "memcg": ("mem_cgroup_out_of_memory", "try_charge_memcg", "charge_memcg", "__mem_cgroup_charge", *_FAULT),
    "memory.max": ("mem_cgroup_out_of_memory", "memory_max_write", "cgroup_file_write", "kernfs_fop_write_iter", "vfs_write",
                   "ksys_write", *_SYSCALL),
    "fault": ("__alloc_pages_slowpath.constprop.0", "__alloc_pages", "__folio_alloc", "vma_alloc_folio", *_FAULT),
    "page table": ("__alloc_pages_slowpath.constprop.0", "__alloc_pages", "pte_alloc_one", "__pte_alloc", *_FAULT),
    "kernel": ("__alloc_pages_slowpath.constprop.0", "__alloc_pages", *_SYSCALL),
}  # fmt: skip


@dataclass(slots=True)
class OomControl:
    """One OOM: who asked and for what, where victims may come from, what has been seen so far (struct oom_control)."""

    task: Task | None  # whose allocation failed; None: a shell's, which wrote memory.max
    gfp: str
    order: int
    memcg: Cgroup | None  # the cgroup at its limit; None: the machine
    nodes: list[int] | None  # the nodes that the memory policy allows, if it does not allow all
    constraint: str = "CONSTRAINT_NONE"
    totalpages: int = 1
    candidates: list[dict[str, Any]] = field(default_factory=list)
    chosen: Task | None = None


# ---------------------------------------------------------------- points


def oom_terms(k: Kernel, task: Task, totalpages: int) -> dict[str, int]:
    """The terms of a task's badness, in pages: rss, swap, pgtables, adj (all 0 without an address space)."""
    if task.mm is None:
        return {"rss": 0, "swap": 0, "pgtables": 0, "adj": 0}
    row = k.s.mms[task.mm.id]
    rss = get_mm_counters(k.s, task.mm)
    return {
        "rss": int(rss[MM_FILEPAGES] + rss[MM_ANONPAGES] + rss[MM_SHMEMPAGES]),
        "swap": int(rss[MM_SWAPENTS]),
        "pgtables": int(row["nr_tables"].sum()),
        "adj": task.oom_score_adj * (totalpages // 1000),
    }


def oom_unkillable_task(task: Task) -> bool:
    """Global init and kernel threads."""
    return task.pid == INIT_PID or task.kthread


def oom_badness(k: Kernel, task: Task, totalpages: int) -> int | None:
    """Points of a task in pages, None if it may not be killed (Linux: LONG_MIN)."""
    if oom_unkillable_task(task) or task.mm is None or task.oom_score_adj == OOM_SCORE_ADJ_MIN or task.mm.oom_skip:
        return None
    return sum(oom_terms(k, task, totalpages).values())


def oom_score(points: int | None, totalpages: int) -> int:
    """/proc/<pid>/oom_score from points and the machine's RAM + swap in pages: 0..2000, 666 for an idle process."""
    if points is None:
        return 0
    share = abs(points) * 1000 // totalpages
    return max((1000 + (share if points >= 0 else -share)) * 2 // 3, 0)


# ---------------------------------------------------------------- the decision

ORIGIN_POINTS = (1 << 63) - 1  # of a task that is in swapoff: it goes before any other



def constrained_alloc(k: Kernel, oc: OomControl) -> None:
    """Set the constraint and totalpages: the cgroup's limit, the policy's nodes, or the machine."""
    swap = total_swap_pages(k)
    if oc.memcg is not None:
        limit = int(k.s.memcgs["max"][oc.memcg.id])
        if int(k.sysctl["vm.swappiness"]):
            limit += min(oc.memcg.swap_max, swap)
        oc.constraint, oc.totalpages = "CONSTRAINT_MEMCG", limit or 1
    elif oc.nodes is not None and len(oc.nodes) < k.nr_nodes:
        present = k.s.zones["present"].reshape(-1, ZONES_PER_NODE).sum(axis=1)
        by_cpuset = oc.task is not None and oc.task.mems == sum(1 << node for node in oc.nodes)
        oc.constraint = "CONSTRAINT_CPUSET" if by_cpuset else "CONSTRAINT_MEMORY_POLICY"
        oc.totalpages = swap + int(present[oc.nodes].sum())
    else:
        oc.constraint, oc.totalpages = "CONSTRAINT_NONE", totalram_pages(k) + swap


def domain(k: Kernel, oc: OomControl) -> list[Task]:
    """The tasks that may be looked at, in order: all, or those of the cgroup's subtree, each cgroup before its children.

    Where a memory policy is the constraint, a task that is itself bound to other nodes could not help; where a cpuset is, one whose
    cpuset has none of its nodes.
    """
    if oc.constraint == "CONSTRAINT_CPUSET" and oc.task is not None:
        return [task for task in k.tasks.values() if not task.mems or task.mems & oc.task.mems]
    if oc.memcg is None:
        return [task for task in k.tasks.values() if oc.nodes is None or in_oom_domain(task, oc.nodes)]
    return [k.tasks[pid] for cg in memcontrol.subtree(k, oc.memcg) for pid in cg.pids if pid in k.tasks]


def in_oom_domain(task: Task, nodes: list[int]) -> bool:
    """May the task have memory on one of these nodes (mempolicy_in_oom_domain)?"""
    policy = task.policy
    return policy is None or policy.mode != "bind" or not set(policy.nodes).isdisjoint(nodes)


def select_bad_process(k: Kernel, oc: OomControl) -> None:
    """Score every task of the domain and remember all of them; the highest points are chosen, the later among equals."""
    most: int | None = None
    for task in domain(k, oc):
        points = oom_badness(k, task, oc.totalpages)
        if points is not None and task.oom_origin:
            points = ORIGIN_POINTS
        row = {"pid": task.pid, "comm": task.comm, **oom_terms(k, task, oc.totalpages), "oom_score_adj": task.oom_score_adj}
        oc.candidates.append(row if points is None else {**row, "points": points})
        if points is not None and (most is None or points >= most):
            most, oc.chosen = points, task


def out_of_memory(k: Kernel, task: Task | None, gfp: str, order: int = 0, memcg: Cgroup | None = None,
                  nodes: list[int] | None = None) -> bool:  # fmt: skip
    """Find and kill a process. True if memory will be freed; False if nobody could be killed for `memcg`.

    Parameters: task that needs memory; gfp, the flags as the report writes them; order of the request; memcg at its limit
    (None: the machine is out of memory); nodes that a memory policy allows. Raises TaskKilled when the machine panics.
    """
    if task is not None and task.dying:
        task.oom_victim = True  # on its way out already: it gets the reserves, nobody else dies for it
        return True
    oc = OomControl(task, gfp, order, memcg, nodes)
    constrained_alloc(k, oc)
    if any(victim.oom_victim and victim.mm is not None and not victim.mm.oom_skip for victim in domain(k, oc)):
        return True  # one of them is dying: its memory comes first (oom_evaluate_task)
    k.clock.spend(k.costs.oom_kill)
    first_line = len(k.dmesg)
    _panic_on_oom(k, oc)
    message = "Memory cgroup out of memory" if memcg is not None else "Out of memory"
    if memcg is None and int(k.sysctl["vm.oom_kill_allocating_task"]) and task is not None and oom_badness(k, task, 1) is not None:
        oc.chosen, message = task, "Out of memory (oom_kill_allocating_task)"
    else:
        select_bad_process(k, oc)
    if oc.chosen is None:
        dump_header(k, oc)
        k.log(4, "Out of memory and no killable processes...")
        _record(k, oc, [], first_line)
        if memcg is None:
            _panic(k, "System is deadlocked on memory")
        return False
    doomed = oom_kill_process(k, oc, oc.chosen, message)
    with k.because(_record(k, oc, [victim.pid for victim in doomed], first_line)):
        for victim in doomed:
            k.kill(victim, SIGKILL)
    return True


def _panic_on_oom(k: Kernel, oc: OomControl) -> None:
    """vm.panic_on_oom: 1 for a machine out of memory, 2 for every OOM (check_panic_on_oom)."""
    mode = int(k.sysctl["vm.panic_on_oom"])
    if mode == 0 or (mode == 1 and oc.constraint != "CONSTRAINT_NONE"):
        return
    first_line = len(k.dmesg)
    dump_header(k, oc)
    _record(k, oc, [], first_line)
    _panic(k, f"Out of memory: {'compulsory' if mode == 2 else 'system-wide'} panic_on_oom is enabled")


def _panic(k: Kernel, reason: str) -> None:
    k.panic_machine(reason)
    raise TaskKilled


def _record(k: Kernel, oc: OomControl, killed: list[int], first_line: int) -> int:
    """The decision as an event, whose number this is, and for `explain`."""
    text = "\n".join(line[3] for line in k.dmesg[first_line:])
    pid = oc.task.pid if oc.task is not None else None
    victim = oc.chosen.pid if oc.chosen is not None else None
    path = oc.memcg.path if oc.memcg is not None else None
    number = k.emit(Oom(k.clock.now, pid, oc.constraint, oc.totalpages, oc.candidates, victim, killed, text, path))
    points = {row["pid"]: row.get("points") for row in oc.candidates}
    for kill in k.oom_kills:
        if not kill["event"]:
            kill |= {"event": number, "victim": victim, "by": pid, "constraint": oc.constraint, "limit_of": path, "points": points.get(kill["pid"])}
    k.last_oom = {
        "event": number, "clock_ns": k.clock.now, "pid": pid, "constraint": oc.constraint, "cgroup": path, "totalpages": oc.totalpages,
        "candidates": oc.candidates, "victim": victim, "killed": killed, "text": text,
    }  # fmt: skip
    return number


# ---------------------------------------------------------------- the kill


def oom_kill_process(k: Kernel, oc: OomControl, victim: Task, message: str) -> list[Task]:
    """Report, and count every kill; answers who must die, each once, in order (oom_kill_process)."""
    dump_header(k, oc, victim)
    doomed = [victim]
    kill_line(k, victim, message)
    group = oom_group(victim, oc.memcg if oc.memcg is not None else k.root_cgroup)
    if group is not None:
        memcontrol.memcg_event(k, group, "oom_group_kill", victim.pid)
        k.log(6, f"Tasks in {group.path} are going to be killed due to memory.oom.group set")
        members = [k.tasks[pid] for cg in memcontrol.subtree(k, group) for pid in cg.pids if pid in k.tasks]
        for member in members:
            if member.oom_score_adj != OOM_SCORE_ADJ_MIN and member.mm is not None:
                kill_line(k, member, message)
                doomed.append(member)
    for task in doomed:
        task.oom_victim = True
    return list(dict.fromkeys(doomed))


def oom_group(victim: Task, within: Cgroup) -> Cgroup | None:
    """The highest cgroup with memory.oom.group from the victim's up to the domain (mem_cgroup_get_oom_group)."""
    line = victim.cgroup.memcg.ancestors
    if within not in line:
        return None
    group = None
    for cg in line[: line.index(within) + 1]:
        if cg.oom_group:
            group = cg
    return group


def kill_line(k: Kernel, task: Task, message: str) -> None:
    """One kill: vmstat's oom_kill, the cgroup's event, the line of the log (__oom_kill_process)."""
    k.s.vm_event[EVENT["oom_kill"]] += 1
    memcontrol.memcg_event(k, task.cgroup.memcg, "oom_kill", task.pid)
    assert task.mm is not None
    row = k.s.mms[task.mm.id]
    rss, tables = get_mm_counters(k.s, task.mm), int(row["nr_tables"].sum())
    k.oom_kills.append({
        "event": 0, "clock_ns": k.clock.now, "pid": task.pid, "comm": task.comm, "uid": task.uid, "cgroup": task.cgroup.path,
        "oom_score_adj": task.oom_score_adj, "total_vm_bytes": task.mm.total_vm * PAGE_SIZE, "anon_rss_bytes": int(rss[MM_ANONPAGES]) * PAGE_SIZE,
        "file_rss_bytes": int(rss[MM_FILEPAGES]) * PAGE_SIZE, "shmem_rss_bytes": int(rss[MM_SHMEMPAGES]) * PAGE_SIZE,
        "swap_bytes": int(rss[MM_SWAPENTS]) * PAGE_SIZE, "pgtables_bytes": tables * PAGE_SIZE,
    })  # fmt: skip
    k.log(3, f"{message}: Killed process {task.pid} ({task.comm}) total-vm:{task.mm.total_vm * 4}kB, "
             f"anon-rss:{int(rss[MM_ANONPAGES]) * 4}kB, file-rss:{int(rss[MM_FILEPAGES]) * 4}kB, "
             f"shmem-rss:{int(rss[MM_SHMEMPAGES]) * 4}kB, UID:{task.uid} pgtables:{tables * 4}kB "
             f"oom_score_adj:{task.oom_score_adj}")  # fmt: skip


# ---------------------------------------------------------------- the report


def dump_header(k: Kernel, oc: OomControl, victim: Task | None = None) -> None:
    """The report, line by line, up to the line that sums the decision up."""
    task = oc.task if oc.task is not None else k.tasks[INIT_PID]
    mask = gfp_types.parse(oc.gfp)
    k.log(4, f"{task.comm} invoked oom-killer: gfp_mask={mask:#x}({oc.gfp}), order={oc.order}, oom_score_adj={task.oom_score_adj}")
    dump_stack(k, oc, task, mask, victim is not None)
    if oc.memcg is not None:
        memcg_info(k, oc.memcg)
    else:
        show_mem(k, oc.nodes if oc.nodes is not None else list(range(k.nr_nodes)))
    if int(k.sysctl["vm.oom_dump_tasks"]):
        dump_tasks(k, oc)
    if victim is not None:
        dump_oom_summary(k, oc, victim)


def dump_stack(k: Kernel, oc: OomControl, task: Task, mask: int, found: bool) -> None:
    """Where the kernel was, in its own function names."""
    k.log(4, f"CPU: {task.cpu} PID: {task.pid} Comm: {task.comm} Not tainted 6.1.0-pagewalk #1")
    k.log(4, "Hardware name: pagewalk simulated machine")
    k.log(4, "Call Trace:")
    k.log(4, " <TASK>")
    if oc.memcg is not None:
        where = "memcg" if oc.task is not None else "memory.max"
    else:
        where = "fault" if mask & GFP_HIGHUSER == GFP_HIGHUSER else "page table" if mask == GFP_PGTABLE_USER else "kernel"
    killer = ("oom_kill_process.cold", "out_of_memory") if found else ("out_of_memory.cold",)
    for name in ("dump_stack_lvl", "dump_header", *killer, *TRACES[where]):
        k.log(4, f" {name}")
    k.log(4, " </TASK>")


def memcg_info(k: Kernel, cg: Cgroup) -> None:
    """Usage, limit, failcnt and memory.stat of the cgroup (mem_cgroup_print_oom_meminfo)."""
    row = k.s.memcgs[cg.id]
    k.log(6, f"memory: usage {int(row['usage']) * 4}kB, limit {int(row['max']) * 4}kB, failcnt {int(row['failcnt'])}")
    k.log(6, f"swap: usage {memcontrol.swap_usage(k, cg) * 4}kB, limit {cg.swap_max * 4}kB, failcnt {cg.swap_events['max']}")
    k.log(6, f"Memory cgroup stats for {cg.path}:")
    k.log(6, "\n".join(f"{key} {value}" for key, value in memcontrol.stat(k, cg).items()))


def dump_tasks(k: Kernel, oc: OomControl) -> None:
    """The table of the domain's processes; sizes in pages, page tables in bytes."""
    k.log(6, "Tasks state (memory values in pages):")
    k.log(6, "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name")
    for task in domain(k, oc):
        if task.mm is None or oom_unkillable_task(task):
            continue
        terms = oom_terms(k, task, 1)
        k.log(6, f"[{task.pid:7d}] {task.uid:5d} {task.pid:5d} {task.mm.total_vm:8d} {terms['rss']:8d} {terms['pgtables'] * 4096:8d} "
                 f"{terms['swap']:8d}         {task.oom_score_adj:5d} {task.comm}")  # fmt: skip


def dump_oom_summary(k: Kernel, oc: OomControl, victim: Task) -> None:
    """The one line that says it all: oom-kill:constraint=…"""
    nodemask = _ranges(oc.nodes) if oc.nodes is not None and oc.constraint != "CONSTRAINT_CPUSET" else "(null)"
    mems = [node for node in range(k.nr_nodes) if oc.task is None or not oc.task.mems or oc.task.mems >> node & 1]
    cpuset = _cpuset_name(oc.task)
    where = f"oom_memcg={oc.memcg.path}" if oc.memcg is not None else "global_oom"
    k.log(6, f"oom-kill:constraint={oc.constraint},nodemask={nodemask},cpuset={cpuset},mems_allowed={_ranges(mems)},"
             f"{where},task_memcg={victim.cgroup.memcg.path},task={victim.comm},pid={victim.pid},uid={victim.uid}")  # fmt: skip


def _cpuset_name(task: Task | None) -> str:
    """The name of the cgroup whose cpuset holds (cpuset_print_current_mems_allowed)."""
    at = task.cgroup if task is not None else None
    while at is not None and at.parent is not None and "cpuset" not in at.controllers:
        at = at.parent
    return at.name if at is not None and at.name else "/"


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] as 0-2,5."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def show_mem(k: Kernel, nodes: list[int]) -> None:
    """Mem-Info: the machine, the nodes that the policy or cpuset allows, their zones, the buddy lists (mm/page_alloc.c:show_free_areas)."""
    shown = [zid for zid in k.populated if int(k.s.zones["node"][zid]) in nodes]
    k.log(4, "Mem-Info:")
    k.log(4, _machine_line(k))
    for node in nodes:
        k.log(4, _node_line(k, node))
    for zid in shown:
        k.log(4, _zone_line(k, zid))
        k.log(4, f"lowmem_reserve[]: {' '.join(str(int(pages)) for pages in k.s.zones['lowmem_reserve'][zid])}")
    for zid in shown:
        k.log(4, _buddy_line(k, zid))
    for node in nodes:
        for h in k.hstates:
            k.log(4, f"Node {node} hugepages_total={h.nr_node[node]} hugepages_free={h.free_node[node]} "
                     f"hugepages_surp={h.surplus_node[node]} hugepages_size={h.size >> 10}kB")
    swap = total_swap_pages(k)
    present = int(k.s.zones["present"].sum())
    for line in (
        f"{_all(k, 'nr_file_pages')} total pagecache pages",
        f"{_all(k, 'nr_swapcached')} pages in swap cache",
        f"Free swap  = {(swap - memcontrol.swap_in_use(k)) * 4}kB",
        f"Total swap = {swap * 4}kB",
        f"{present} pages RAM",
        "0 pages HighMem/MovableOnly",
        f"{present - totalram_pages(k)} pages reserved",
        "0 pages hwpoisoned",
    ):
        k.log(4, line)


def _all(k: Kernel, name: str) -> int:
    return int(k.s.node_stat[:, NODE[name]].sum())


def _machine_line(k: Kernel) -> str:
    n = {name: _all(k, name) for name in NODE}
    return (
        f"active_anon:{n['nr_active_anon']} inactive_anon:{n['nr_inactive_anon']} isolated_anon:{n['nr_isolated_anon']}\n"
        f" active_file:{n['nr_active_file']} inactive_file:{n['nr_inactive_file']} isolated_file:{n['nr_isolated_file']}\n"
        f" unevictable:{n['nr_unevictable']} dirty:{n['nr_dirty']} writeback:{n['nr_writeback']}\n"
        f" slab_reclaimable:{n['nr_slab_reclaimable']} slab_unreclaimable:{n['nr_slab_unreclaimable']}\n"
        f" mapped:{n['nr_mapped']} shmem:{n['nr_shmem']} pagetables:{n['nr_page_table_pages']}\n"
        f" sec_pagetables:{n['nr_sec_page_table_pages']} bounce:0\n"
        f" kernel_misc_reclaimable:{n['nr_kernel_misc_reclaimable']}\n"
        f" free:{int(k.s.zones['free'].sum())} free_pcp:{k.boot_facts.free_pcp} free_cma:0"
    )


def _node_line(k: Kernel, node: int) -> str:
    kb = {name: int(k.s.node_stat[node, column]) * 4 for name, column in NODE.items()}
    return (
        f"Node {node} active_anon:{kb['nr_active_anon']}kB inactive_anon:{kb['nr_inactive_anon']}kB "
        f"active_file:{kb['nr_active_file']}kB inactive_file:{kb['nr_inactive_file']}kB unevictable:{kb['nr_unevictable']}kB "
        f"isolated(anon):{kb['nr_isolated_anon']}kB isolated(file):{kb['nr_isolated_file']}kB mapped:{kb['nr_mapped']}kB "
        f"dirty:{kb['nr_dirty']}kB writeback:{kb['nr_writeback']}kB shmem:{kb['nr_shmem']}kB shmem_thp: 0kB "
        f"shmem_pmdmapped: 0kB anon_thp: {kb['nr_anon_transparent_hugepages']}kB writeback_tmp:{kb['nr_writeback_temp']}kB "
        f"kernel_stack:{kb['nr_kernel_stack'] // 4}kB pagetables:{kb['nr_page_table_pages']}kB "
        f"sec_pagetables:{kb['nr_sec_page_table_pages']}kB all_unreclaimable? yes"
    )


def _zone_line(k: Kernel, zid: int) -> str:
    zone = k.s.zones[zid]
    marks = [int(zone["wmark"][mark]) + int(zone["boost"]) for mark in range(3)]
    kb = {name: int(zone["stat"][column]) * 4 for name, column in ZONE.items()}
    pcp = k.boot_facts.pcp_counts.get(zid, 0)
    cpus = max(1, k.nr_cpus // k.nr_nodes)
    return (
        f"Node {int(zone['node'])} {ZONE_NAMES[int(zone['type'])]} free:{int(zone['free']) * 4}kB boost:{int(zone['boost']) * 4}kB "
        f"min:{marks[0] * 4}kB low:{marks[1] * 4}kB high:{marks[2] * 4}kB reserved_highatomic:0KB "
        f"active_anon:{kb['nr_zone_active_anon']}kB inactive_anon:{kb['nr_zone_inactive_anon']}kB "
        f"active_file:{kb['nr_zone_active_file']}kB inactive_file:{kb['nr_zone_inactive_file']}kB "
        f"unevictable:{kb['nr_zone_unevictable']}kB writepending:{kb['nr_zone_write_pending']}kB "
        f"present:{int(zone['present']) * 4}kB managed:{int(zone['managed']) * 4}kB mlocked:{kb['nr_mlock']}kB bounce:0kB "
        f"free_pcp:{pcp * cpus * 4}kB local_pcp:{pcp * 4}kB free_cma:0kB"
    )


def _buddy_line(k: Kernel, zid: int) -> str:
    zone = k.s.zones[zid]
    blocks = [int(zone["nr_free"][order]) for order in range(MAX_ORDER)]
    each = [f"{count}*{4 << order}kB{' (M)' if count else ''}" for order, count in enumerate(blocks)]
    total = sum(count << order for order, count in enumerate(blocks)) * 4
    return f"Node {int(zone['node'])} {ZONE_NAMES[int(zone['type'])]}: {' '.join(each)} = {total}kB"
