"""Kernel: one simulated Linux machine as a value.

`Kernel.boot(machine, seed)` builds it; `call` is the only way in which anything changes; `read` and its kin serve
Linux's own files; `drain` hands over what happened. No I/O, no wall clock, no randomness but the seed: the same
machine, seed and calls give the same bytes anywhere, and two kernels in one process do not know of each other.

Everything hangs on this object by name: `s` the columns (`mm_types.State`), `tasks`, `mms`, `inodes`, `cgroups`,
`sysctl`, `clock`. A mechanism is a module of functions that take the kernel as their first argument `k`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from core import boot, record, snapshot, verify, views
from core.abi.errno import SysError
from core.events import Event, Fault
from core.fs import tree
from core.mm import compaction, filemap, gfp, memcontrol, page_writeback, pcp, tlb, told, touches
from core.mm.mm_types import CTL_IN_LRU_FAULT
from core.mm.told import tell
from core.mm.touches import Touched
from core.panic import Signal, TaskKilled
from core.programs import program
from core.sched import exec as image
from core.sched import fair, psi
from core.sched import task as sched
from core.syscalls.file import lookup
from core.syscalls.mm import one_page
from core.syscalls.table import CALLS
from core.untold import Fresh, Untold, after_causes

if TYPE_CHECKING:
    from core.clock import Clock
    from core.machine import Costs, Machine
    from core.mm.hugetlb_types import Hstate
    from core.mm.hugetlbfs import Mount
    from core.mm.ksm import Ksmd
    from core.mm.memcontrol import Cgroup
    from core.mm.mm_types import AnonVma, Array, Inode, Mm, State
    from core.mm.mmzone import BootFacts, PerCpuPages
    from core.mm.policy_client import Advisor
    from core.mm.tlb import Tlb, TlbColumns
    from core.monitor import Monitor
    from core.record import Records
    from core.sched.task import Task

Operation = tuple[str, int | None, Mapping[str, Any]]  # what `call` takes: operation, process, arguments

CATCH_UP_WORK = 1 << 20  # accesses that programs may make while a client's call takes its time


@dataclass(slots=True)
class Result:
    """What one call answers. Sizes in bytes, addresses as integers, times in simulated ns."""

    result: dict[str, Any] | None = None
    errno: str | None = None
    detail: str | None = None  # why the errno, in one sentence
    signal: str | None = None
    fault_address: int | None = None
    minor: int = 0
    major: int = 0
    killed: list[int] = field(default_factory=list)
    elapsed_ns: int = 0
    tlb: dict[str, int] | None = None  # what the call's accesses found in the TLB (tlb.COUNTED); None: it made none

    @classmethod
    def of(cls, made: Touched, at: int) -> Result:
        """What touch number `at` of those that were made in one step answers."""
        return cls({"touched": 1}, minor=int(made.fault[at] > 0), elapsed_ns=made.elapsed_ns[at], tlb=tlb.by_name(made.tlb(at)))


class Because:
    """The context of `Kernel.because`."""

    __slots__ = ("causes", "number")

    def __init__(self, causes: list[int], number: int) -> None:
        self.causes, self.number = causes, number

    def __enter__(self) -> None:
        if self.number:
            self.causes.append(self.number)

    def __exit__(self, *failure: object) -> None:
        if self.number:
            self.causes.pop()


class Kernel:
    """One machine. See the head of the file; `boot.py` fills the attributes declared here."""

    machine: Machine
    seed: int
    rng: random.Random
    costs: Costs
    clock: Clock
    s: State
    nr_nodes: int
    nr_cpus: int
    populated: list[int]  # rows of the zones that have memory
    boot_facts: BootFacts
    pcp: PerCpuPages
    tasks: dict[int, Task]
    next_pid: int
    mms: dict[int, Mm]
    free_mm_ids: list[int]
    inodes: dict[int, Inode]
    files: dict[str, Inode]
    next_inode: int
    anon_vmas: dict[int, AnonVma]
    next_anon_vma: int
    cgroups: dict[int, Cgroup]
    root_cgroup: Cgroup
    sysctl: dict[str, int | str]
    thp: dict[str, Any]
    khugepaged: dict[str, Any]
    shmem: dict[str, list[int]]  # shrinklist: objects whose last huge page reaches beyond their end; deferred: by node (`shmem_huge`)
    ksm: dict[str, int]  # the settings of /sys/kernel/mm/ksm
    ksmd: Ksmd
    tlb: Tlb
    tlb_columns: TlbColumns
    tlb_costs: tuple[int, int, bool]
    numa: dict[str, int]  # the tunables of NUMA balancing (debugfs)
    lru_gen: dict[str, int]  # on; mm_walk, nonleaf_young: the switches of `enabled` but the first; min_ttl_ms
    hstates: list[Hstate]  # the pools of huge pages, the largest size first
    default_hstate: Hstate
    mounts: dict[str, Mount]  # of hugetlbfs, by path
    policy_client: dict[str, list[int]]  # answers: what a client's policy will take (`policy_client`)
    advisor: Advisor | None = None  # the client itself, while it is asked; no part of the state
    swap_devices: list[dict[str, Any]]
    vma_ra_enabled: int  # /sys/kernel/mm/swap/vma_ra_enabled
    committed_pages: int
    flushers: dict[int, tuple[int, int]]  # those at work, by cgroup (0: the machine's): when the disk has written it (ns), pages
    kswapd: list[dict[str, Any]]
    kcompactd: list[dict[str, Any]]
    psi: psi.PsiTasks
    rqs: list[fair.Rq]  # the processors
    loadavg: list[int]
    nr_programs: int  # processes that run by themselves
    work_left: int  # accesses that programs may still make in this call
    pause: Callable[[], None] | None  # a host's, in a long advance: it may take the events so far (`drain`)
    watch: Callable[[int], None] | None  # a host's, in long work: gets how many accesses a call has made; if it raises, the kernel is of no use
    unordered: bool  # events of several processors may be out of order of time
    in_memstall: bool  # the current task waits for memory (task->in_memstall)
    rmap: Any  # reverse-mapping tables of this moment (rmap_walk.tables), None when mappings may have changed
    dmesg: list[tuple[int, int, int, str]]  # (sequence, clock ns, level, text)
    events: list[Event | int]  # a number: a row of `untold`
    untold: Untold
    records: Records  # what was decided lately, for `explain`
    quiet: bool  # a program's own instructions run: their faults are not events
    nr_events: int  # ever emitted: the number of the newest
    nr_ordered: int  # those that are in order of time for good: what a host may have
    causes: list[int]  # numbers of the events that what happens now follows from, the nearest last
    timer: str | None  # whose time has come, None while a request is carried out
    killed: list[int]
    panicked: str | None
    last_oom: dict[str, Any] | None
    oom_kills: list[dict[str, Any]]  # every kill of the OOM killer
    monitor: Monitor  # vmstat's samples
    current: Task | None

    # ---- life

    @classmethod
    def boot(cls, machine: Machine, seed: int = 0) -> Kernel:
        """Power on: zones, allocator, the kernel's own footprint, init. Costs milliseconds."""
        k = cls()
        boot.boot(k, machine, seed)
        return k

    @classmethod
    def restore(cls, blob: bytes) -> Kernel:
        """The kernel that `snapshot` saved."""
        k = cls()
        snapshot.load(k, blob)
        return k

    def snapshot(self) -> bytes:
        """The whole state as bytes; `restore` continues from it exactly."""
        return snapshot.save(self)

    def digest(self) -> str:
        """A hash of the whole state: equal histories give equal digests."""
        return snapshot.digest(self)

    def verify(self) -> None:
        """Check every invariant; KernelBug names the rule that broke."""
        verify.verify(self)

    # ---- what changes it

    def call(self, op: str, pid: int | None = None, /, **args: Any) -> Result:
        """Run one operation of the table `CALLS` to its end.

        Raises KeyError for an unknown operation and LookupError for a process that is not there; whatever a
        program may cause is in the Result: `errno`, `signal`, `killed`.
        """
        row = CALLS[op]
        if self.panicked is not None:
            return Result(errno="EIO")
        if not row.process:
            return self._run(row.handler, None, args)
        task = sched.live(self, pid)
        minor, major = task.minflt, task.majflt
        answer = self._run(row.handler, task, args)
        answer.minor, answer.major = task.minflt - minor, task.majflt - major
        record.keep(self.records.calls, {"pid": task.pid, "op": op, "begin_ns": self.clock.now - answer.elapsed_ns, "elapsed_ns": answer.elapsed_ns,
                                  "minor": answer.minor, "major": answer.major})  # fmt: skip
        return answer

    def calls(self, ops: Sequence[Operation]) -> Touched | None:
        """Carry out the first of these operations in one step, as many as are plain touches of one process (`mm.touches`); None: not even one is.

        They leave, tell and answer what `call` would, one after the other: `Result.of` makes the answers.
        """
        op, pid, _ = ops[0]
        task = self.tasks.get(pid) if op == "touch" and pid is not None else None
        if task is None or task.state == "zombie" or self.panicked is not None or not touches.is_settled(self, task):
            return None
        pages = []
        for op, caller, args in ops:
            if op != "touch" or caller != pid or (page := one_page(**args)) is None:
                break
            pages.append(page)
        if not pages:
            return None
        made = touches.make(self, task, pages, min(self.clock.timers[0][0], self.kcompactd[0]["look"]))
        if made is not None:
            self._around(task, pages, made)
        return made

    def _around(self, task: Task, pages: Sequence[tuple[int, int, int]], made: Touched) -> None:
        """These touches are made, and the clock shows the time before them: what `call` does around each."""
        begun = self._enter(task, Result())
        begins = [end - took for end, took in zip(made.clock_ns, made.elapsed_ns, strict=True)]
        if any(made.fault):
            for (page, _, _), kind, begin in zip(pages, made.fault, begins, strict=False):
                if kind:
                    told.faults(self, task, kind, page, 1, 1, begin + self.costs.syscall)
                    task.minflt += 1
        self.clock.run_user(sum(made.user_ns))
        self.clock.spend(made.clock_ns[-1] - self.clock.now)
        tlb.count(self, task, made.tlb_in_all())
        self.tlb.call = made.tlb(-1)
        self.psi.seq += len(made) - 1  # the end of each is a change, of which the beginning of the next leaves nothing
        self._leave(task, Result(), begun)
        record.keep_all(self.records.calls, [
            {"pid": task.pid, "op": "touch", "begin_ns": begin, "elapsed_ns": took, "minor": int(kind > 0), "major": 0}
            for begin, took, kind in zip(begins, made.elapsed_ns, made.fault, strict=True)
        ])  # fmt: skip

    def _run(self, handler: Any, task: Task | None, args: dict[str, Any]) -> Result:
        """One handler with its outcome sorted into the answer's channels."""
        answer = Result()
        begun = self._enter(task, answer)
        try:
            if task is None:
                answer.result = handler(self, **args)
            else:
                if task.returning:
                    image.run_user(self, task)
                answer.result = handler(self, task, **args)
        except SysError as failure:
            answer.errno, answer.detail, answer.result = failure.errno.name, failure.why or None, failure.result
        except Signal as signal:
            answer.signal, answer.fault_address = signal.name, signal.address
            assert task is not None
            sched.deliver(self, task, signal)
        except TaskKilled:  # or the machine panicked under it
            answer.signal, answer.errno = ("SIGKILL", None) if self.panicked is None else (None, "EIO")
        finally:
            self._leave(task, answer, begun)
        return answer

    def _enter(self, task: Task | None, answer: Result) -> tuple[int, int, int, int]:
        """A call begins: its task runs, its account is opened. What the clock stood at: in all, and by kind of time."""
        clock = self.clock
        begun = clock.now, clock.user_ns, clock.asleep_ns, clock.others_ns
        self.killed, self.current, self.rmap, self.work_left = answer.killed, task, None, CATCH_UP_WORK
        self.tlb.call = ()
        if task is not None:
            psi.set_state(self, task, psi.RUNNING | psi.ONCPU)
            if task.mm is not None:
                tlb.switch_mm(self, task.cpu, task.mm)
        clock.spend(self.costs.syscall)
        return begun

    def _leave(self, task: Task | None, answer: Result, begun: tuple[int, int, int, int]) -> None:
        """A call ends: what its task still has to answer for, what daemons do in an idle machine, the accounts."""
        if task is not None:
            memcontrol.resume_user_mode(self, task)
            sched.exit_to_user(self, task)
        self.current = None
        if self.tlb.call:
            answer.tlb = tlb.by_name(self.tlb.call)
        tlb.enter_lazy_tlb(self)
        self.s.ctl[CTL_IN_LRU_FAULT] = 0
        pcp.settle(self, task.cpu if task is not None else 0)
        if not self.nr_programs:  # else they go on in the time that is theirs
            gfp.kswapd_finish(self)
            page_writeback.flusher_finish(self)
        if task is not None:
            self._account(task, *begun)
        self.catch_up(begun[0])
        self.rmap = None
        answer.elapsed_ns = self.clock.now - begun[0]

    def _account(self, task: Task, start: int, user: int, asleep: int, others: int) -> None:
        """The call that began at these times is over: its time goes to the task and to its processor (account_process_tick)."""
        clock, rq = self.clock, self.rqs[task.cpu]
        user, asleep = clock.user_ns - user, clock.asleep_ns - asleep
        system = clock.now - start - user - asleep - (clock.others_ns - others)
        task.utime_ns += user
        task.stime_ns += system
        rq.idle_to(start)
        rq.run(user, system)
        if asleep:
            rq.io_until = max(rq.io_until, clock.now)
        if task.program is None:
            psi.set_state(self, task, 0)

    def catch_up(self, start: int) -> None:
        """The others have their share of the time since `start`: timers that fell due, programs on their processors."""
        clock = self.clock
        end = clock.now
        if self.nr_programs:
            clock.now = start
            fair.run_until(self, end)
            clock.now = max(clock.now, end)
        elif clock.timers[0][0] <= end:
            fair.run_until(self, end)
        psi.settle(self, clock.now)
        self.order_events()

    def advance(self, ns: int, work: int = 1 << 23) -> int:
        """Let `ns` of simulated time pass: timers fire, programs run, in order of time. How much has passed: less if `work` did not do."""
        compaction.arm_kcompactd(self)
        start, self.work_left = self.clock.now, work
        fair.run_until(self, start + ns)
        self.rmap = None
        return self.clock.now - start

    def fire(self, timer: str) -> None:
        """What a timer does, by name: it follows from nothing but the time. A sleeper's says who."""
        name, _, pid = timer.partition(":")
        if pid:
            boot.TASK_TIMERS[name](self, int(pid))
            return
        with self.by_itself(name):
            boot.TIMERS[name](self)
            pcp.settle(self, self.nr_cpus - 1)  # a daemon finds the last CPU idle

    @contextmanager
    def by_itself(self, name: str) -> Iterator[None]:
        """What is emitted within follows from no request: the time of a daemon or of a program had come."""
        before = self.causes, self.timer
        self.causes, self.timer = [], name
        try:
            yield
        finally:
            self.causes, self.timer = before

    # ---- programs

    def run_program(self, task: Task, horizon: int) -> tuple[int, str]:
        """A program goes on on its processor (`programs.program.run`)."""
        with self.by_itself("program"):
            return program.run(self, task, horizon)

    def perform(self, task: Task, work: Callable[[], None]) -> str | None:
        """Something that a program does, sorted as a call is: the errno or signal, if it was refused."""
        self.current = task
        refusal = None
        try:
            image.run_user(self, task)
            work()
        except SysError as failure:
            refusal = failure.errno.name
        except Signal as signal:
            refusal = signal.name
            sched.deliver(self, task, signal)
        except TaskKilled:
            pass
        finally:
            memcontrol.resume_user_mode(self, task)
            sched.exit_to_user(self, task)
            self.current = None
            self.s.ctl[CTL_IN_LRU_FAULT] = 0
        return refusal

    def syscall(self, name: str, task: Task, **args: Any) -> Any:
        """A program's system call, by the table's handler."""
        self.rmap = None
        self.clock.spend(self.costs.syscall)
        return CALLS[name].handler(self, task, **args)

    def user(self, name: str, task: Task, **args: Any) -> Any:
        """What a program's processor does without a system call: accesses."""
        return CALLS[name].handler(self, task, **args)

    def machine_call(self, name: str, **args: Any) -> Any:
        """An operation of the machine's that a program needs done: a file on the disk."""
        return CALLS[name].handler(self, **args)

    def file(self, path: str) -> Inode:
        """The file at a path; SysError(ENOENT)."""
        return lookup(self, path)

    # ---- what shows it

    def read(self, path: str) -> bytes:
        """A file of /proc, /sys, the cgroup tree or /dev/kmsg as `cat` would show it; FsError if it is not there."""
        return tree.read(self, path)

    def pread(self, path: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`: for pagemap and its like, which are never read whole."""
        return tree.pread(self, path, offset, length)

    def listdir(self, path: str) -> list[str]:
        """Names in a directory of the tree, in the kernel's order."""
        return tree.listdir(self, path)

    def stat(self, path: str) -> dict[str, Any]:
        """`type`, `mode`, `size`, `binary`, `doc`, `support` of a file of the tree."""
        return tree.stat(self, path)

    def archive(self) -> list[tuple[str, bytes]]:
        """The tree's files with their content, for tools that read a captured system."""
        return tree.archive(self)

    def view(self, name: str, **args: Any) -> Any:
        """A structured view (`views.VIEWS`): processes, vmas, walk, cgroups, audit, …"""
        return views.VIEWS[name](self, **args)

    @property
    def clock_ns(self) -> int:
        """Simulated nanoseconds since boot."""
        return self.clock.now

    def drain(self) -> list[Event]:
        """The events since the last drain, in order."""
        told = len(self.events) - (self.nr_events - self.nr_ordered)
        events, self.events = tell(self.untold, self.events[:told]), self.events[told:]
        if not self.events:
            self.untold.clear()
        return events

    # ---- what mechanisms use

    def emit(self, event: Event) -> int:
        """Record an event of the trace catalogue: its number, counted from boot (0: it was none)."""
        if self.quiet and isinstance(event, Fault):
            return 0
        if self.causes:
            event.cause = self.causes[-1]
        else:
            event.timer = self.timer
        self.events.append(event)
        self.nr_events += 1
        return self.nr_events

    def emit_rows(self, rows: Array) -> None:
        """Record events that were noted in a compiled loop, as rows of `untold`."""
        self.events += self.untold.add(rows)
        self.nr_events += len(rows)

    def order_events(self) -> None:
        """Events so far that lie before now, in order of time; those of a processor that is ahead wait until the clock has passed them.

        Their numbers change with their places, and so do those by which others name them as their cause. Without programs nobody goes
        ahead but kswapd after a call: its events have the time of the call's end.
        """
        fresh = self.nr_events - self.nr_ordered
        if not self.unordered or not fresh:
            self.nr_ordered = self.nr_events
            return
        first, events = self.nr_ordered + 1, self.events[len(self.events) - fresh :]
        columns = Fresh(self.untold, events)
        if not self.nr_programs:
            np.minimum(columns.times, self.clock.now, out=columns.times)
        due = after_causes(columns.times, columns.causes, first)
        order = np.argsort(due, kind="stable")
        numbers = np.empty(fresh, np.int64)
        numbers[order] = np.arange(first, first + fresh)
        ours = columns.causes >= first
        columns.causes[ours] = numbers[columns.causes[ours] - first]
        columns.write_back()
        self.events[len(self.events) - fresh :] = [events[at] for at in order.tolist()]
        new = numbers.tolist()

        def renumbered(number: int) -> int:
            return new[number - first] if number >= first else number

        for daemon in self.kswapd:
            daemon["cause"] = renumbered(daemon["cause"])
        for task in self.tasks.values():
            task.fatal_cause = renumbered(task.fatal_cause)
        if self.last_oom is not None:
            self.last_oom["event"] = renumbered(self.last_oom["event"])
        for kill in self.oom_kills:
            kill["event"] = renumbered(kill["event"])
        record.renumber(self.records, first, renumbered)
        self.nr_ordered += int((due <= self.clock.now).sum())
        self.unordered = self.nr_ordered < self.nr_events

    def because(self, number: int) -> Because:
        """What is emitted within follows from the event of that number (0: from none)."""
        return Because(self.causes, number)

    def flush_dirty(self, why: str) -> int:
        """Every dirty page is written, on the time of whoever waits for it; how many were."""
        return filemap.flush(self, why)

    def flush_file(self, inode: Inode, why: str) -> int:
        """Write the dirty pages of one file; how many."""
        return filemap.write_back(self, inode, 0, inode.nr_file_pages, why)

    def write_some(self, inode: Inode, pages: int) -> int:
        """The flusher writes a run of about `pages` dirty pages of a file, on its own time; how many."""
        return filemap.write_some(self, inode, pages)

    def log(self, level: int, text: str) -> None:
        """A line of the kernel log (printk level 0..7)."""
        self.dmesg.append((len(self.dmesg), self.clock.now, level, text))

    def kill(self, task: Task, number: int) -> None:
        """A fatal signal that no handler sees, for mechanisms below the scheduler (the OOM killer)."""
        sched.kill(self, task, number)

    def panic_machine(self, reason: str) -> None:
        """The simulated kernel panics: the log says why, files stay readable, calls answer EIO."""
        self.log(0, f"Kernel panic - not syncing: {reason}")
        self.panicked = reason

    def cgroup_at(self, path: str) -> Cgroup | None:
        """The cgroup at "/a/b", None if there is none."""
        group = self.root_cgroup
        for name in path.strip("/").split("/") if path.strip("/") else []:
            child = group.children.get(name)
            if child is None:
                return None
            group = child
        return group
