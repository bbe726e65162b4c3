"""The program: what an address space holds when a process begins (fs/exec.c, fs/binfmt_elf.c).

Every program here is one small static executable, laid out as the recorded one was:

    0x400000  r--p    4 kB  file   headers
    0x401000  r-xp  544 kB  file   code
    0x489000  r--p  164 kB  file   constants
    0x4b2000  r--p   16 kB  file   relocated data: 2 of 4 pages were written, then protected
    0x4b6000  rw-p   12 kB  file   data: all written
    0x4b9000  rw-p  496 kB         bss and heap, all written
    0x7ffff7ff9000   16 kB  [vvar], above it 8 kB [vdso]
    0x7ffffffde000  132 kB  [stack], all written

The file lies in the root file system, which is memory (tmpfs): its pages are page cache of shmem kind, in RAM once
for all processes. So a fresh process has VmSize 1392 kB, RssShmem 720 kB that it shares, RssAnon 648 kB of its own,
and 7 page tables (VmPTE 28 kB). None of these numbers is written anywhere: exec maps the segments and then
touches their pages through the fault path, like the program would; the faults do not count in the answers of calls. The recorded one
began with mlockall and munlockall: what stays of them is that each page was marked as accessed (`get_user_pages`), so reclaim that finds
it in use takes it for active at once.

Whoever returns from fork runs a few instructions before it asks for anything: `run_user` touches that working set.
The child faults in what it executes (fault-around brings 16 pages a fault) and copies the stack and data pages it
writes; the parent writes one page of its stack. That is why a forked child has less RssShmem than its parent. The parent
does so within its call; the child is new on a processor and runs beside it to where it waits for what it shall do (`ret_from_fork`): 128 kB
of code, six pages of its own. The rest of the code comes in with its first call. A program's child runs when its processor comes to it.

Init (pid 1) is such a process, too, and the parent of all; it locks its memory, as the program of the recordings did.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.abi.errno import Errno, SysError
from core.abi.mman import (
    VM_ACCOUNT,
    VM_DONTDUMP,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_IO,
    VM_LOCKED,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_SOFTDIRTY,
    VM_WRITE,
)
from core.abi.page_flags import PG_DIRTY
from core.events import Process
from core.jit import njit
from core.mm import cpuset, memcontrol, memory, mempolicy, mmap, mmzone, pcp, tlb
from core.mm.filemap import find
from core.mm.mm_types import WMARK_MIN, Inode, State, ask
from core.mm.page_ops import pte_alloc
from core.mm.vma import split_unchecked
from core.sched import psi
from core.sched.task import (
    CHILD,
    FIRST_CALL,
    FIRST_PID,
    INIT_PID,
    LIVE_STATES,
    NO_RETURN,
    PARENT,
    PROTECTED,
    TASK_COMM_LEN,
    Task,
    alloc_pid,
    discard,
    enlist,
    mm_alloc,
    mmput,
    new_task,
    node_of,
)

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup
    from core.mm.mm_types import Mm

PROGRAM = "/bin/program"
ROOT_DEV = (0, 2)  # the root file system, as maps shows it
PROGRAM_PAGES = 185

_MAY = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
# (first page, pages, VM_*, first page of the file, pages that the program writes)
SEGMENTS: tuple[tuple[int, int, int, int, int], ...] = (
    (0x400, 1, VM_READ, 0x00, 0),
    (0x401, 136, VM_READ | VM_EXEC, 0x01, 0),
    (0x489, 41, VM_READ, 0x89, 0),
    (0x4B2, 4, VM_READ | VM_WRITE, 0xB2, 2),
    (0x4B6, 3, VM_READ | VM_WRITE, 0xB6, 3),
)
RELRO = 3  # the segment that is protected after its relocation
BSS, BSS_PAGES, BRK_PAGES = 0x4B9, 90, 34
STACK, STACK_PAGES = 0x7FFFFFFDE, 33
VVAR, VDSO = 0x7FFFF7FF9, 0x7FFFF7FFD
STARTUP_FAULTS = 45  # faults since it last handed in its rss counts when the recorded program reached its main loop
START_STACK = 0x7FFFFFFFEDC0
CODE = (0x401000, 0x488381)  # start_code, end_code
DATA = (0x4B2698, 0x4B8370)  # start_data, end_data

OWN_STACK, OWN_HEAP = (0x7FFFFFFFD, 0x7FFFFFFFE), (0x4B9, 0x4BA, 0x513)  # pages that it writes whatever it does
# what the instructions touch that a task has of its own to run: pages read or executed, pages written
WORKING_SETS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    PARENT: ((), (0x7FFFFFFFD, 0x4B6)),
    CHILD: ((0x412, 0x430), (*OWN_STACK, 0x4B6, *OWN_HEAP)),  # to where it waits for what it shall do
    FIRST_CALL: ((0x402, 0x420, 0x440, 0x460, 0x470, 0x480, 0x489, 0x499, 0x4A0), (0x4B7,)),  # what any call needs beyond that
    # after clear_refs 4 whatever it writes to faults once: all that, and its buffers on the heap (three faults in the recording)
    PROTECTED: ((), (*OWN_STACK, 0x4B6, 0x4B7, *OWN_HEAP, 0x4BB, 0x4BC, 0x4BD)),
}

IMAGE_PAGES = 185 + 162 + 7 + 1 + 4 + 6  # frames that init takes: file, own pages, tables, pgd, stack, slab


def program(k: Kernel, path: str) -> Inode:
    """The executable at `path`, put into the root file system when it is first run."""
    for inode in k.inodes.values():
        if inode.path == path and inode.dev == ROOT_DEV:
            return inode
    inode = Inode(k.next_inode, path, PROGRAM_PAGES << 12, shmem=True, ino=5 + k.next_inode, dev=ROOT_DEV)
    inode.writable = False
    k.next_inode += 1
    k.inodes[inode.id] = inode
    return inode


@njit
def mark_written(s: State, root: int, pages: int) -> None:
    """The executable's pages are dirty: they were written when the root file system was unpacked, and have no disk to go to."""
    for index in range(pages):
        pfn = find(s, root, index)
        if pfn:
            s.mem[pfn]["flags"] |= PG_DIRTY


# ---------------------------------------------------------------- exec


def exec_program(k: Kernel, task: Task, path: str) -> None:
    """execve(2): a new address space with the program at `path`; the old one is given back (begin_new_exec, exec_mmap).

    oom_score_adj, limits, cgroup and fault counts stay; signal handlers and the peaks of memory use do not. Errors: ENOMEM
    (then the old program lives on); ENOENT for an empty path.
    """
    if not path:
        raise SysError(Errno.ENOENT, "no program")
    old = task.mm
    mm = mm_alloc(k, task)
    if old is not None:
        k.s.mms["il_prev"][mm.id] = k.s.mms["il_prev"][old.id]
    task.mm, task.in_exec = mm, True
    try:
        load(k, task, program(k, path))
    except BaseException:
        task.mm = old
        mmput(k, task, mm)
        raise
    finally:
        task.in_exec = False
    if old is not None:
        mmput(k, task, old)
    task.comm = path.rpartition("/")[2][: TASK_COMM_LEN - 1]
    task.catch_signals = False
    task.returning = NO_RETURN
    k.emit(Process(k.clock.now, "exec", task.pid, task.comm, task.cgroup.path))


def load(k: Kernel, task: Task, exe: Inode, locked: bool = False) -> None:
    """Lay the program out in the task's empty address space and let it run up to its main loop. ENOMEM."""
    mm = _mm(task)
    task.exe = mm.exe = exe
    mm.start_code, mm.end_code = CODE
    mm.start_data, mm.end_data = DATA
    mm.start_stack = START_STACK
    mm.def_flags = VM_LOCKED if locked else 0
    lay_out(k, task, mm, exe)
    with_quiet_faults(k, task, mm)
    k.s.mms["lag"][mm.id] = 0
    k.s.mms["events"][mm.id] = STARTUP_FAULTS
    mm.hiwater_vm = mm.total_vm


def lay_out(k: Kernel, task: Task, mm: Mm, exe: Inode) -> None:
    """The mappings, none of whose pages is touched yet."""
    stack = VM_READ | VM_WRITE | _MAY | VM_GROWSDOWN | VM_ACCOUNT | mm.def_flags
    vma = mmap.mmap_region(k, task, STACK, STACK_PAGES, stack & ~VM_ACCOUNT, STACK)
    vma.flags &= ~VM_SOFTDIRTY  # the recorded stack is not soft-dirty: it was made before the program
    for start, pages, prot, pgoff, _ in SEGMENTS:
        mmap.mmap_region(k, task, start, pages, prot | _MAY | mm.def_flags, pgoff, exe)
    mmap.brk_region(k, task, BSS, BSS_PAGES)
    mm.start_brk = mm.brk = (BSS + BSS_PAGES) << 12
    mmap.brk_region(k, task, BSS + BSS_PAGES, BRK_PAGES)
    mm.brk += BRK_PAGES << 12
    may = VM_MAYREAD | VM_MAYWRITE
    mmap.install_special_mapping(k, task, VVAR, 4, VM_READ | VM_MAYREAD | VM_IO | VM_DONTDUMP | VM_PFNMAP, "[vvar]")
    mmap.install_special_mapping(k, task, VDSO, 2, VM_READ | VM_EXEC | may | VM_MAYEXEC, "[vdso]")


def with_quiet_faults(k: Kernel, task: Task, mm: Mm) -> None:
    """The start-up code: relocate, write data and heap, read the rest; then protect what was relocated, and see that all is there."""
    with quietly(k, task):
        for start, pages, _, _, written in SEGMENTS:
            if written:
                memory.touch(k, task, start, written, 1, memory.WRITE)
            if pages > written:
                memory.touch(k, task, start + written, pages - written, 1, memory.READ)
        memory.touch(k, task, BSS, BSS_PAGES + BRK_PAGES, 1, memory.WRITE)
        memory.touch(k, task, STACK, STACK_PAGES, 1, memory.WRITE)
        map_vdso(k, task)
        _protect_relro(k, mm)
        mmap.mm_populate(k, task, 0, STACK + STACK_PAGES)


def _protect_relro(k: Kernel, mm: Mm) -> None:
    """mprotect of the relocated pages: no longer data, still accounted."""
    first, pages = SEGMENTS[RELRO][:2]
    vma = next(vma for vma in mm.vmas if vma.start == first)
    if vma.pages > pages:
        split_unchecked(k, vma, first + pages)
    vma.flags &= ~VM_WRITE
    mm.data_vm -= vma.pages
    memory.change_protection(k, vma, vma.start, vma.end, False)


def map_vdso(k: Kernel, task: Task) -> None:
    """The page table under [vvar] and [vdso]; their frames are the kernel's and count to nobody."""
    mm = _mm(task)
    node = mmzone.cpu_to_node(k, task.cpu)
    ask(k.s, mm=mm.id, memcg=task.cgroup.memcg.id, node=node, cpu=task.cpu, mark=WMARK_MIN, policy=mempolicy.in_force(task, None))
    _alloc_table(k.s, mm.id, VDSO)


@njit
def _alloc_table(s: State, mm_id: int, vpn: int) -> int:
    return pte_alloc(s, s.vmf[0], mm_id, vpn)


def _mm(task: Task) -> Mm:
    assert task.mm is not None
    return task.mm


# ---------------------------------------------------------------- what programs do by themselves


def run_user(k: Kernel, task: Task) -> None:
    """The instructions between a fork (or clear_refs 4) and the process's next call: they touch a small working set once, then nothing."""
    if not task.returning or task.mm is None:
        return
    what, task.returning = task.returning, NO_RETURN
    reads, writes = WORKING_SETS[what]
    with quietly(k, task):
        for vpn in reads:
            _touch(k, task, vpn, memory.READ)
        for vpn in writes:
            _touch(k, task, vpn, memory.WRITE)
        if what == FIRST_CALL:
            map_vdso(k, task)
    if what == CHILD:
        task.returning = FIRST_CALL


def ret_from_fork(k: Kernel, pid: int) -> None:
    """The timer of a client's new child: it runs for the first time, up to where it waits for its next call."""
    task = k.tasks.get(pid)
    if task is None or task.state not in LIVE_STATES:
        return
    with k.by_itself("fork"):
        psi.set_state(k, task, psi.RUNNING | psi.ONCPU)
        tlb.switch_mm(k, task.cpu, _mm(task))
        k.perform(task, lambda: None)
        tlb.enter_lazy_tlb(k)
        pcp.settle(k, task.cpu)
        psi.set_state(k, task, 0)


def _touch(k: Kernel, task: Task, vpn: int, access: int) -> None:
    """One access, if that page of the program is still mapped as it was."""
    wanted = VM_WRITE if access == memory.WRITE else VM_READ
    if any(vma.start <= vpn < vma.end and vma.flags & wanted for vma in _mm(task).vmas):
        memory.touch(k, task, vpn, 1, 1, access)


@contextmanager
def quietly(k: Kernel, task: Task) -> Iterator[None]:
    """A program's own instructions: their faults count neither as the process's nor as events."""
    minor, major, k.quiet = task.minflt, task.majflt, True
    try:
        yield
    finally:
        task.minflt, task.majflt, k.quiet = minor, major, False


# ---------------------------------------------------------------- the first process, and those after it


def start_init(k: Kernel) -> None:
    """Boot's last step: pid 1. Users' processes are numbered from 101."""
    init = new_task(k, alloc_pid(k), 0, "init", k.root_cgroup, None)
    init.mm = mm_alloc(k, None)
    load(k, init, program(k, PROGRAM), locked=True)
    init.mm.def_flags = 0
    assert init.exe is not None
    mark_written(k.s, init.exe.root, PROGRAM_PAGES)
    enlist(k, init)
    k.next_pid = FIRST_PID


def spawn(k: Kernel, comm: str, cgroup: str = "/", oom_score_adj: int = 0, catch_signals: bool = False,
          program_path: str | None = None) -> Task:  # fmt: skip
    """A program started by init's shell: in the root cgroup first, then moved to `cgroup`, as a shell does it.

    Errors: ENOENT without that cgroup, EBUSY if it may hold no processes, ENOMEM, EAGAIN.
    """
    group: Cgroup | None = k.cgroup_at(cgroup)
    if group is None:
        raise SysError(Errno.ENOENT, f"no cgroup {cgroup}")
    if group.parent is not None and group.subtree_control:
        raise SysError(Errno.EBUSY, f"{cgroup} has controllers in cgroup.subtree_control: only its leaves may hold processes")
    k.clock.spend(k.costs.fork)
    task = new_task(k, 0, INIT_PID, comm, k.root_cgroup, None)
    task.oom_score_adj = oom_score_adj
    try:
        task.mm = mm_alloc(k, None)
        load(k, task, program(k, program_path or PROGRAM))
        task.pid = alloc_pid(k)
    except BaseException:
        discard(k, task)
        raise
    task.catch_signals = catch_signals
    enlist(k, task)
    if group is not k.root_cgroup:
        memcontrol.attach(k, group, task.pid)
    cpuset.join(k, task)
    k.emit(Process(k.clock.now, "spawn", task.pid, task.comm, task.cgroup.path))
    return task


__all__ = ["exec_program", "load", "node_of", "program", "run_user", "spawn", "start_init"]
