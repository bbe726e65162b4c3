"""Processes: how they begin, copy themselves, change their program, end (kernel/fork.c, kernel/exit.c, kernel/signal.c).

The life of a process, as memory management sees it:

    spawn   a new process of init's shell: kernel stack, task structures, an address space with a program in it
    fork    a child with the same mappings. Private anonymous pages are not copied but shared, read-only in both, until
            one side writes; file pages are not even entered into the child's page tables: it faults them in again
    exec    the address space is thrown away and a fresh program laid out; oom_score_adj stays, peaks start over
    exit    the address space is given back at once; a zombie of no size remains until the parent waits for it

What a process costs the kernel: 4 pages of stack (NR_KERNEL_STACK counts 16 kB), a page for its top-level table,
about 17 KiB of slab (task_struct, mm_struct, signal and sighand structures, open files, mappings: what a recorded
fork added to memory.stat's `slab`), each paid for by the cgroup of the process that called fork. Failing at any point
of a fork gives back all that was taken, and the parent sees ENOMEM.

A process that is spawned is a child of init (pid 1), which waits for its children at once: it goes from dead to gone
in one step. Children that lose their parent become init's.

Signals act by their defaults: they kill, stop, continue or are ignored. `catch_signals` says that the program has handlers for
SIGSEGV and SIGBUS and lives on. A process that kills itself, or that the OOM killer picks during its own call, dies on
its way back to user space; anybody else dies at once.

Simplified: one thread a process; a process without a program is `sleeping` (it waits for its next call) unless it is stopped or dead;
one with a program (`core/programs/`) runs, sleeps or is blocked, as the scheduler has it (`fair.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.abi import signal as signals
from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SHIFT
from core.abi.page_flags import PG_STACK, PG_TABLE
from core.events import OomReap, Process
from core.jit import njit
from core.mm import gfp, ksm, memcontrol, mmap, numa_balancing, tlb
from core.mm.gfp_types import GFP_KERNEL_ACCOUNT
from core.mm.mm_types import Mm, State
from core.mm.page_alloc import free_block
from core.mm.page_counter import refill_stock, uncharge
from core.mm.pgtable import give_table_row, take_table_row
from core.mm.util import update_hiwater_rss
from core.sched import fair, psi
from core.vmstat import MEMCG_KMEM

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.mm.mempolicy import Mempolicy
    from core.mm.mm_types import Inode
    from core.mm.numa_balancing import NumaStats
    from core.panic import Signal

INIT_PID = 1
FIRST_PID = 101  # the first process that a user spawns
PID_MAX = 1 << 22
TASK_COMM_LEN = 16
STACK_PAGES = 4  # THREAD_SIZE, 16 KiB
TASK_SLAB_BYTES = 17_312
RLIMITS: dict[str, int | None] = {"as": None, "data": None, "stack": 8 << 20, "memlock": 8 << 20}
NO_RETURN, PARENT, CHILD, PROTECTED, FIRST_CALL = range(5)  # Task.returning; PROTECTED: its pages were write-protected (clear_refs 4)
LIVE_STATES = ("running", "sleeping", "blocked", "stopped")


class Task:
    """One process (struct task_struct and signal_struct). Faults, signals, limits; `mm` is None once it is dead."""

    __slots__ = ("pid", "ppid", "comm", "mm", "cgroup", "state", "oom_score_adj", "oom_score_adj_min", "catch_signals", "minflt",
                 "majflt", "cminflt", "cmajflt", "exit_code", "exit_signal", "rlimits", "cpu", "cpus_allowed", "mems", "policy", "start_ns",
                 "utime_ns", "kthread", "children", "dumpable", "exe", "oom_victim", "in_exec", "uid", "fatal_signal", "fatal_cause", "returning",
                 "stack", "stack_memcg", "slab_memcg", "numa", "oom_retries", "tlb", "oom_origin", "nr_dirtied", "nr_dirtied_pause",
                 "dirty_paused_when",
                 "stime_ns", "program", "se")  # fmt: skip

    def __init__(self, pid: int, ppid: int, comm: str, cgroup: Cgroup) -> None:
        self.pid = pid
        self.ppid = ppid
        self.comm = comm[: TASK_COMM_LEN - 1]
        self.mm: Mm | None = None
        self.cgroup = cgroup
        self.state = "sleeping"  # running, sleeping, blocked, stopped, zombie, dead
        self.oom_score_adj = 0
        self.oom_score_adj_min = 0
        self.catch_signals = False
        self.minflt = self.majflt = 0
        self.cminflt = self.cmajflt = 0  # of the children that were waited for
        self.exit_code = 0
        self.exit_signal = 0  # number of the signal that ended it
        self.rlimits: dict[str, int | None] = dict(RLIMITS)  # bytes; None: unlimited
        self.cpu = 0
        self.cpus_allowed: list[int] = []
        self.numa: NumaStats | None = None  # NUMA balancing's view of its accesses
        self.mems = 0  # nodes that its cpuset allows, as bits; 0: all (mems_allowed)
        self.policy: Mempolicy | None = None
        self.start_ns = 0
        self.utime_ns = self.stime_ns = 0
        self.program: Any = None  # core.programs.program.Program, if it runs by itself
        self.se: Any = None  # fair.SchedEntity of its program
        self.kthread = False
        self.children: list[int] = []
        self.dumpable = True
        self.exe: Inode | None = None
        self.oom_victim = False
        self.in_exec = False
        self.uid = 0
        self.fatal_signal = 0  # number of a signal that will end it on its way to user space
        self.fatal_cause = 0  # number of the event that it follows from
        self.returning = NO_RETURN  # from a fork: has instructions of its own to run before its next call (exec.run_user)
        self.stack: list[int] = []  # frames of the kernel stack
        self.stack_memcg = 0
        self.slab_memcg = 0
        self.tlb: tuple[int, ...] = (0,) * len(tlb.COUNTED)  # what its accesses found there
        self.oom_retries = 0  # faults that came back with VM_FAULT_OOM
        self.oom_origin = False  # it is in swapoff: the OOM killer takes it first
        self.nr_dirtied = 0  # file pages dirtied since it last looked whether too many are dirty (page_writeback)
        self.nr_dirtied_pause = 32  # how many it may dirty before it looks
        self.dirty_paused_when = 0  # jiffies: when it had earned what it dirtied

    @property
    def dying(self) -> bool:
        """Dead, or about to be: a fatal signal is pending."""
        return self.fatal_signal != 0 or self.state not in LIVE_STATES

    def __repr__(self) -> str:
        return f"Task({self.pid}, {self.comm}, {self.state})"


# ---------------------------------------------------------------- finding


def find_task(k: Kernel, pid: int) -> Task:
    """A process, living or a zombie, for whoever looks at it; LookupError if there is none."""
    task = k.tasks.get(pid)
    if task is None:
        raise LookupError(gone(k, pid))
    return task


def find_kill(k: Kernel, pid: int) -> dict[str, Any] | None:
    """The OOM killer's latest kill of a process of this number, as `GET …/oom` shows it."""
    return next((row for row in reversed(k.oom_kills) if row["pid"] == pid), None)


def gone(k: Kernel, pid: int) -> str:
    """Why there is no process of this number, as far as the records tell."""
    kill = find_kill(k, pid)
    if kill is None:
        return f"no process {pid}"
    return f"no process {pid}: the OOM killer killed {kill['comm']} (event {kill['event']}: see .../processes/{pid}/explain/oom)"


def live(k: Kernel, pid: int | None) -> Task:
    """The process that makes a call. LookupError, in plain words, for one that is not there or dead."""
    task = k.tasks.get(pid) if pid is not None else None
    if task is None:
        raise LookupError(gone(k, pid) if pid is not None else "this operation is made by a process: say which pid")
    if task.state == "zombie":
        raise LookupError(f"process {pid} is dead: its parent {task.ppid} has not waited for it yet")
    return task


def alloc_pid(k: Kernel) -> int:
    """The next process number; after pid_max (4194304) the search begins again at 300, as in Linux (EAGAIN if all are taken)."""
    for _ in range(PID_MAX):
        pid = k.next_pid
        k.next_pid = pid + 1 if pid + 1 < PID_MAX else 300
        if pid not in k.tasks:
            return pid
    raise SysError(Errno.EAGAIN, "every pid is in use")


# ---------------------------------------------------------------- what a process takes from the kernel


def kernel_page(k: Kernel, payer: Task | None, flags: int) -> int:
    """One page for the kernel itself on the account of `payer`'s cgroup (GFP_KERNEL_ACCOUNT). ENOMEM."""
    memcg = payer.cgroup.memcg if payer is not None else k.root_cgroup
    memcontrol.charge(k, payer, memcg, 1)
    try:
        pfn = gfp.alloc_pages(k, payer, 0, GFP_KERNEL_ACCOUNT)
        if pfn == 0:
            raise SysError(Errno.ENOMEM, "no page for the kernel")
    except BaseException:
        _uncharge_kmem(k.s, 0, memcg.id, 1)
        raise
    page = k.s.mem[pfn]
    page["flags"], page["memcg"] = flags, memcg.id
    return pfn


def free_kernel_page(k: Kernel, pfn: int) -> None:
    """Give back a page of `kernel_page`."""
    memcg = int(k.s.mem["memcg"][pfn])
    free_block(k.s, pfn, 0)
    _uncharge_kmem(k.s, 0, memcg, 1)


@njit
def _uncharge_kmem(s: State, cpu: int, memcg: int, nr: int) -> None:
    """Kernel pages go back to the cpu's stock first (obj_cgroup_uncharge_pages); more than 64 there are given back."""
    if memcg == 0:
        return
    if nr > 64:
        uncharge(s, memcg, nr)
    else:
        refill_stock(s, cpu, memcg, nr)


def _take_stack(k: Kernel, task: Task, payer: Task | None) -> None:
    """The kernel stack: 4 pages (alloc_thread_stack_node)."""
    try:
        for _ in range(STACK_PAGES):
            task.stack.append(kernel_page(k, payer, PG_STACK))
    except BaseException:
        while task.stack:
            free_kernel_page(k, task.stack.pop())
        raise
    task.stack_memcg = payer.cgroup.memcg.id if payer is not None else 0
    _account_stack(k, task, 1)


def _account_stack(k: Kernel, task: Task, sign: int) -> None:
    for pfn in task.stack:
        memcontrol.account_kernel_stack(k.s, task.stack_memcg, node_of(k, pfn), sign)


def _give_stack(k: Kernel, task: Task) -> None:
    _account_stack(k, task, -1)
    while task.stack:
        free_kernel_page(k, task.stack.pop())


def node_of(k: Kernel, pfn: int) -> int:
    """The NUMA node that holds a frame."""
    zones = k.s.zones
    inside = (zones["start_pfn"] <= pfn) & (pfn < zones["start_pfn"] + zones["spanned"])
    return int(zones["node"][inside.argmax()])


def mm_alloc(k: Kernel, payer: Task | None) -> Mm:
    """An empty address space with its top-level page table (kernel/fork.c:mm_alloc). ENOMEM."""
    mm_id = k.free_mm_ids[-1] if k.free_mm_ids else len(k.mms.keys() | k.ksmd.slots) + 1
    if mm_id >= len(k.s.mms):
        raise SysError(Errno.EAGAIN, f"this machine holds {len(k.s.mms) - 1} address spaces at most")
    pfn = kernel_page(k, payer, PG_TABLE)
    if k.free_mm_ids:
        k.free_mm_ids.pop()
    memcg = payer.cgroup.memcg.id if payer is not None else 0
    _set_up_mm(k.s, mm_id, pfn, memcg)
    mm = Mm(mm_id)
    mm.pgd_pfn, mm.pgd = pfn, int(k.s.mms["pgd"][mm_id])
    tlb.new_context(k, mm)
    k.mms[mm_id] = mm
    return mm


@njit
def _set_up_mm(s: State, mm_id: int, pfn: int, memcg: int) -> None:
    """The columns of a new address space: zero counters and its pgd."""
    tid = take_table_row(s)
    s.mem[pfn].private = tid
    s.memcgs[s.mem[pfn].memcg].stat[MEMCG_KMEM] += 1
    row = s.mms[mm_id]
    row.pgd = tid
    row.memcg = memcg
    row.il_prev = -1
    row.new = -1
    for i in range(4):
        row.rss[i] = 0
        row.lag[i] = 0
    for i in range(3):
        row.nr_tables[i] = 0
    row.events = row.huge_zero = row.used = 0
    row.ksm_list = row.ksm_items = row.ksm_merging = 0


@njit
def _tear_down_mm(s: State, mm_id: int, pfn: int) -> None:
    """Forget an emptied address space; the frame of its pgd is the caller's to free."""
    row = s.mms[mm_id]
    give_table_row(s, row.pgd)
    row.pgd = 0
    row.memcg = 0
    s.memcgs[s.mem[pfn].memcg].stat[MEMCG_KMEM] -= 1


def mmput(k: Kernel, task: Task, mm: Mm) -> None:
    """`task` uses an address space no more; the last user gives everything back (kernel/fork.c:mmput)."""
    mm.users -= 1
    if mm.users:
        return
    ksm.ksm_exit(k, mm)
    mmap.exit_mmap(k, task, mm)
    _tear_down_mm(k.s, mm.id, mm.pgd_pfn)
    free_kernel_page(k, mm.pgd_pfn)
    del k.mms[mm.id]
    if mm.id not in k.ksmd.slots:  # else its row stays until ksmd has let go of it
        k.free_mm_ids.append(mm.id)


# ---------------------------------------------------------------- birth


def new_task(k: Kernel, pid: int, ppid: int, comm: str, cgroup: Cgroup, payer: Task | None) -> Task:
    """A process without an address space, entered nowhere yet: stack and structures. ENOMEM."""
    task = Task(pid, ppid, comm, cgroup)
    task.start_ns = k.clock.now
    task.cpus_allowed = list(range(k.nr_cpus))
    _take_stack(k, task, payer)
    task.slab_memcg = task.stack_memcg
    memcontrol.account_slab_unreclaimable(k.s, task.slab_memcg, TASK_SLAB_BYTES)
    return task


def enlist(k: Kernel, task: Task) -> None:
    """Make a process visible: in the table, in its cgroup, with its parent."""
    k.tasks[task.pid] = task
    task.cgroup.pids.append(task.pid)
    if (parent := k.tasks.get(task.ppid)) is not None and parent is not task:
        parent.children.append(task.pid)


def discard(k: Kernel, task: Task) -> None:
    """Unwind a birth that failed: nothing of the process remains."""
    if task.mm is not None:
        mm, task.mm = task.mm, None
        mmput(k, task, mm)
    if task.stack:
        _give_stack(k, task)
    memcontrol.account_slab_unreclaimable(k.s, task.slab_memcg, -TASK_SLAB_BYTES)


def fork(k: Kernel, parent: Task) -> Task:
    """Copy the calling process (kernel/fork.c:copy_process). Returns the child.

    Errors: ENOMEM without memory, over the cgroup's limit, or beyond the commit limit; EAGAIN without a pid. Then nothing
    has changed.
    """
    assert parent.mm is not None
    k.clock.spend(k.costs.fork)
    child = new_task(k, 0, parent.pid, parent.comm, parent.cgroup, parent)
    try:
        child.mm = mm_alloc(k, parent)
        k.s.mms["il_prev"][child.mm.id] = k.s.mms["il_prev"][parent.mm.id]
        mmap.dup_mmap(k, child, child.mm, parent.mm)
        numa_balancing.dup(k, child.mm)
        child.pid = alloc_pid(k)
    except BaseException:
        discard(k, child)
        raise
    for name in ("oom_score_adj", "oom_score_adj_min", "catch_signals", "cpu", "mems", "policy", "uid", "exe", "dumpable"):
        setattr(child, name, getattr(parent, name))
    child.rlimits = dict(parent.rlimits)
    child.cpus_allowed = list(parent.cpus_allowed)
    child.returning, parent.returning = CHILD, PARENT
    enlist(k, child)
    if parent.program is not None:
        child.program, child.se = parent.program.fork(child.pid), fair.SchedEntity()
        k.nr_programs += 1
        fair.start(k, child)
    else:
        k.clock.at(k.clock.now, f"fork:{child.pid}")
    k.emit(Process(k.clock.now, "fork", parent.pid, parent.comm, parent.cgroup.path, child=child.pid))
    return child


# ---------------------------------------------------------------- death


def do_exit(k: Kernel, task: Task, code: int = 0, signal: int = 0) -> None:
    """End a process: memory back, children to init, a zombie for the parent (kernel/exit.c:do_exit).

    Parameters: code, its exit status 0..255; signal, the number of the signal that ended it (0: none).
    """
    if task.state not in LIVE_STATES:
        return
    k.clock.spend(k.costs.exit)
    if task.program is not None:
        fair.stop(k, task)
        task.program = None
        k.nr_programs -= 1
    psi.forget(k, task)
    task.exit_code, task.exit_signal, task.fatal_signal = code, signal, 0
    free = int(k.s.zones["free"].sum())
    exit_mm(k, task)
    if task.oom_victim:
        k.emit(OomReap(k.clock.now, task.pid, task.comm, "exit", int(k.s.zones["free"].sum()) - free))
    task.state = "zombie"
    _give_stack(k, task)
    task.cgroup.pids.remove(task.pid)
    if signal:
        k.killed.append(task.pid)
    name = signals.NAMES[signal] if signal else None
    k.emit(Process(k.clock.now, "exit", task.pid, task.comm, task.cgroup.path, signal=name, code=None if signal else code))
    _forget_children(k, task)
    if task.ppid == INIT_PID:
        reap(k, task)


def exit_mm(k: Kernel, task: Task) -> None:
    """Let go of the address space."""
    if task.mm is not None:
        mm, task.mm = task.mm, None
        update_hiwater_rss(k, mm)
        mmput(k, task, mm)


def _forget_children(k: Kernel, task: Task) -> None:
    """Children become init's, which waits for the dead ones at once (forget_original_parent)."""
    init = k.tasks[INIT_PID]
    for pid in task.children:
        child = k.tasks[pid]
        child.ppid = INIT_PID
        init.children.append(pid)
        if child.state == "zombie":
            reap(k, child)
    task.children = []


def reap(k: Kernel, task: Task) -> None:
    """The parent has waited: the process is gone (release_task). Its faults count as its parent's children's."""
    parent = k.tasks[task.ppid]
    parent.cminflt += task.minflt + task.cminflt
    parent.cmajflt += task.majflt + task.cmajflt
    parent.children.remove(task.pid)
    task.state = "dead"
    memcontrol.account_slab_unreclaimable(k.s, task.slab_memcg, -TASK_SLAB_BYTES)
    del k.tasks[task.pid]
    k.emit(Process(k.clock.now, "reap", task.pid, task.comm, task.cgroup.path))


def wait(k: Kernel, task: Task, pid: int = -1) -> dict[str, Any]:
    """Reap a dead child: {pid, status, signal}; {pid: 0} if there are children but none is dead (wait4 with WNOHANG).

    Errors: ECHILD when there is no such child.
    """
    wanted = [child for child in task.children if pid in (-1, child)]
    if not wanted:
        raise SysError(Errno.ECHILD, "no such child to wait for")
    for child in (k.tasks[child] for child in wanted):
        if child.state == "zombie":
            reap(k, child)
            return {"pid": child.pid, "status": child.exit_code, "signal": child.exit_signal}
    return {"pid": 0, "status": 0, "signal": 0}


# ---------------------------------------------------------------- signals


def send_signal(k: Kernel, task: Task, number: int) -> None:
    """kill(2) of one process: the signal's default action, or its handler's, which lives on.

    Errors: EINVAL for a number that is no signal. 0 only asks whether the process is there. Init takes no signal
    that it has no handler for, SIGKILL included.
    """
    if number == 0:
        return
    name = signals.NAMES.get(number)
    if name is None:
        raise SysError(Errno.EINVAL, f"{number} is no signal")
    cause = k.emit(Process(k.clock.now, "signal", task.pid, task.comm, task.cgroup.path, signal=name))
    if task.pid == INIT_PID or task.kthread or task.state not in LIVE_STATES:
        return
    if name == "SIGCONT":
        continue_task(k, task)
    elif name in signals.STOPPING:
        task.state = "stopped"
        if task.program is not None:
            fair.stop(k, task)
    elif name in signals.FATAL and not (task.catch_signals and name in ("SIGSEGV", "SIGBUS")):
        with k.because(cause):
            kill(k, task, number)


def continue_task(k: Kernel, task: Task) -> None:
    """SIGCONT: a stopped process goes on, with its program if it has one."""
    if task.state == "stopped":
        task.state = "sleeping"
        if task.program is not None:
            fair.start(k, task)
            task.state = fair.state_of(task)


def kill(k: Kernel, task: Task, number: int) -> None:
    """A fatal signal: the running task dies on its way to user space, any other at once."""
    if task is k.current:
        task.fatal_signal, task.fatal_cause = number, k.causes[-1] if k.causes else 0
    else:
        do_exit(k, task, signal=number)


def exit_to_user(k: Kernel, task: Task) -> None:
    """The end of every call: a fatal signal that came meanwhile takes effect (exit_to_user_mode_loop)."""
    if task.fatal_signal:
        with k.because(task.fatal_cause):
            do_exit(k, task, signal=task.fatal_signal)


def deliver(k: Kernel, task: Task, signal: Signal) -> None:
    """SIGSEGV or SIGBUS of the task's own making (force_sig_fault): the handler lives on, without one it dies."""
    number = signals.SIGNALS[signal.name]
    cause = k.emit(Process(k.clock.now, "signal", task.pid, task.comm, task.cgroup.path, signal=signal.name))
    if task.catch_signals:
        return
    if signal.name == "SIGSEGV":  # show_signal_msg; without the registers that are not simulated
        where = f" in {task.exe.path.rpartition('/')[2]}" if task.exe is not None else ""
        k.log(6, f"{task.comm}[{task.pid}]: segfault at {signal.address:x}{where} likely on CPU {task.cpu}")
    with k.because(cause):
        kill(k, task, number)


# ---------------------------------------------------------------- what files show


def vsize(task: Task) -> int:
    """VmSize in bytes."""
    return task.mm.total_vm << PAGE_SHIFT if task.mm is not None else 0
