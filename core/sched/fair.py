"""Who runs on which processor, and for how long (kernel/sched/core.c, kernel/sched/fair.c).

*The model.* Each processor has a run queue. The task with the smallest virtual runtime goes first: the one that has had the least
so far. It runs until its slice is used up, it sleeps or it ends; then the next. With n tasks on the queue a period of 12 ms is shared
(6 ms times 1 + log2 of the processors, at most 8 of them counted), 1.5 ms a task at least:

    2 processors, 2 tasks on one: slices of 6 ms        10 tasks on one: 1.5 ms each, a period of 15 ms

A task that wakes takes the processor that it had if that is idle, else an idle one that it may use, else the one with the shortest
queue; it gets a credit of half a period at most, so that who sleeps a lot goes ahead of who computes. A processor with nothing to do
takes the last of the longest queue (newidle_balance).

*Time.* A processor has a clock of its own. The one that is furthest behind goes next: its task runs one slice to the end, then
another may be behind. So processors are never further apart than a slice, and what two of them do within it is seen in the order of
the slices, not access by access. The order is that of (time, priority, number): flushers and timers first, then kswapd, then
processors by number. Sleeping takes a task off its processor; a timer `wake:PID` of the machine's clock brings it back.

    cpu0 |A A A A|B B|A A ...          A sleeps for the disk at the end of its 4 ms: B gets the processor,
    cpu1 |C C C C C C|D D D ...        D was waiting behind C

*kswapd* is a thread of its own. Whoever finds memory short lets it make a round beside him (`kswapd_turn`): its time passes on the
least busy processor of its node, not on the task's, unless there is only one. While it is awake it goes on by itself between the slices.
Other daemons run when their timers fire, on the last processor.

A call of a client is not scheduled: it runs from its beginning to its end on its process's processor, and whatever programs there
are run meanwhile on the others, or wait for that one (`Kernel.catch_up`).

*To its memory.* NUMA balancing knows on which node a task's memory is (`numa_balancing`): on a machine with nodes it moves there, to an idle
processor, unless that leaves its new node busier than its old one by more than two tasks (`task_numa_find_cpu`).

*Simplified*: every task has nice 0; tasks do not change places with one another for the sake of their memory (task_numa_compare); a task that
wakes does not cut short another's slice; one clock tick is not visible; tasks move
between processors only as said above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.events import SchedMoveNuma
from core.mm import page_writeback, tlb, vmscan
from core.mm.mmzone import cpu_to_node
from core.sched import psi

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.sched.task import Task

LATENCY_NS = 6_000_000  # sysctl_sched_latency and min_granularity, before scaling by processors
MIN_GRANULARITY_NS = 750_000
HORIZON_NS = 100_000_000  # computing alone, without memory: in stretches of this length at most
NEVER = 1 << 62
MANY_EVENTS = 1024  # that a host may want to hand on while time passes
NUMA_IMBALANCE_MIN = 2  # tasks more than elsewhere that a node may have for the sake of their memory
LOAD_FREQ_NS = (5 * 250 + 1) * 4_000_000  # kernel/sched/loadavg.c: every 5 s and a tick
LOAD_EXP = (1884, 2014, 2037)  # 1, 5, 15 minutes; 1.0 = 2048


class SchedEntity:
    """A task in the eyes of the scheduler (struct sched_entity)."""

    __slots__ = ("vruntime", "on_rq", "ready_ns", "wake_ns", "why")

    def __init__(self) -> None:
        self.vruntime = 0
        self.on_rq = False
        self.ready_ns = 0  # not before this time does it run (again)
        self.wake_ns = -1  # when it wakes; -1: not asleep
        self.why = "sleeping"  # asleep how: sleeping (S), blocked (D)


class Rq:
    """A processor's run queue and its account of time (struct rq, kernel_cpustat)."""

    __slots__ = ("number", "now", "queue", "last", "min_vruntime", "user_ns", "system_ns", "iowait_ns", "idle_ns", "io_until", "switches")

    def __init__(self, number: int, now: int) -> None:
        self.number = number
        self.now = now
        self.queue: list[int] = []  # pids that want to run
        self.last = 0  # who ran last
        self.min_vruntime = 0
        self.user_ns = self.system_ns = self.iowait_ns = 0
        self.idle_ns = now  # all the time of the boot
        self.io_until = 0  # until when somebody who ran here waits for the disk
        self.switches = 0

    def idle_to(self, now: int) -> None:
        """Nothing to do until `now`; the part in which somebody waits for the disk is iowait."""
        if now <= self.now:
            return
        waiting = max(0, min(self.io_until, now) - self.now)
        self.iowait_ns += waiting
        self.idle_ns += now - self.now - waiting
        self.now = now

    def run(self, user: int, system: int) -> None:
        """Somebody ran."""
        self.user_ns += user
        self.system_ns += system
        self.now += user + system


def make_rqs(k: Kernel) -> list[Rq]:
    """Boot: an empty queue a processor."""
    return [Rq(number, k.clock.now) for number in range(k.nr_cpus)]


def scale(k: Kernel) -> int:
    """1 + log2 of the processors, at most 8 of which count (SCHED_TUNABLESCALING_LOG)."""
    return min(k.nr_cpus, 8).bit_length()


def sched_slice(k: Kernel, nr: int) -> int:
    """How long one of `nr` tasks of a queue runs."""
    least = MIN_GRANULARITY_NS * scale(k)
    return max(LATENCY_NS * scale(k) // nr, least)


# ---------------------------------------------------------------- on and off the queues


def enqueue(k: Kernel, task: Task, now: int) -> None:
    """A task wants to run (try_to_wake_up, enqueue_task_fair)."""
    se = task.se
    rq = k.rqs[select_task_rq(k, task)]
    if not rq.queue:
        rq.idle_to(now)
    task.cpu = rq.number
    se.vruntime = max(se.vruntime, rq.min_vruntime - LATENCY_NS * scale(k) // 2)
    se.on_rq, se.ready_ns, se.wake_ns = True, now, -1
    rq.queue.append(task.pid)
    psi.task_change(k, task.pid, task.cpu, task.cgroup, now, psi.RUNNING)


def select_task_rq(k: Kernel, task: Task) -> int:
    """The processor that a waking task goes to."""
    allowed = task.cpus_allowed
    if task.cpu in allowed and not k.rqs[task.cpu].queue:
        return task.cpu
    return min(allowed, key=lambda cpu: (len(k.rqs[cpu].queue), cpu != task.cpu, cpu))


def dequeue(k: Kernel, task: Task) -> None:
    """A task does not want to run: it sleeps, is stopped or dead."""
    if task.se.on_rq:
        k.rqs[task.cpu].queue.remove(task.pid)
        task.se.on_rq = False


def sleep_until(k: Kernel, task: Task, wake: int, why: str) -> None:
    """Off the queue until the clock shows `wake`."""
    dequeue(k, task)
    task.se.wake_ns, task.se.why = wake, why
    k.clock.at(wake, f"wake:{task.pid}")


def wake(k: Kernel, pid: int) -> None:
    """The timer of a sleeper; one that has died or was woken otherwise since is none."""
    task = k.tasks.get(pid)
    if task is not None and task.program is not None and task.se.wake_ns == k.clock.now and task.state != "zombie":
        task.se.wake_ns = -1
        if task.state != "stopped":
            enqueue(k, task, k.clock.now)


def start(k: Kernel, task: Task) -> None:
    """A program begins, or goes on after SIGCONT."""
    if not task.se.on_rq and task.se.wake_ns < 0:
        enqueue(k, task, k.clock.now)


def stop(k: Kernel, task: Task) -> None:
    """A program runs no more: SIGSTOP, its end, or its process's."""
    dequeue(k, task)
    psi.forget(k, task)


def state_of(task: Task) -> str:
    """running, sleeping or blocked: a program's task between two calls."""
    return "running" if task.se.on_rq else task.se.why


def unbalanced(k: Kernel) -> bool:
    """Is there a processor with nothing to do, and somebody who waits for another?"""
    idle = waits = False
    for rq in k.rqs:
        if not rq.queue:
            idle = True
        elif len(rq.queue) > 1 or k.tasks[rq.queue[0]].se.ready_ns < rq.now:
            waits = True
    return idle and waits


def new_idle_balance(k: Kernel, now: int) -> None:
    """Processors without a task take the last of the longest queue, if it may come."""
    for rq in k.rqs:
        if rq.queue:
            continue
        busiest = max(k.rqs, key=lambda other: (len(other.queue), -other.number))
        if len(busiest.queue) < 2:
            held = [other for other in k.rqs if other.queue and k.tasks[other.queue[0]].se.ready_ns < other.now]
            if not held:
                return
            busiest = held[0]  # its one task waits for a client's call to end
        movable = [pid for pid in busiest.queue if rq.number in k.tasks[pid].cpus_allowed]
        if not movable:
            continue
        task = k.tasks[max(movable, key=lambda pid: (k.tasks[pid].se.vruntime, pid))]
        busiest.queue.remove(task.pid)
        rq.idle_to(max(now, task.se.ready_ns))
        task.se.vruntime += rq.min_vruntime - busiest.min_vruntime
        task.cpu = rq.number
        rq.queue.append(task.pid)
        psi.task_change(k, task.pid, task.cpu, task.cgroup, max(rq.now, task.se.ready_ns), psi.RUNNING)


def affinity_changed(k: Kernel, task: Task) -> None:
    """sched_setaffinity: a task that waits on a processor that it may use no more goes to another."""
    if task.program is not None and task.se.on_rq and task.cpu not in task.cpus_allowed:
        dequeue(k, task)
        enqueue(k, task, max(k.clock.now, task.se.ready_ns))


# ---------------------------------------------------------------- to one's memory


def task_numa_find_cpu(k: Kernel, task: Task, preferred: int) -> int:
    """An idle processor of the node where the running task's memory is, else of another node; -1: it stays (task_numa_migrate).

    A node that is to have one task more may be busier than the one it leaves by two, and only as long as few run there: an eighth of its processors,
    one at least.
    """
    own = cpu_to_node(k, task.cpu)
    for node in [preferred, *(node for node in range(k.nr_nodes) if node not in (preferred, own))]:
        cpus = [cpu for cpu in range(k.nr_cpus) if cpu_to_node(k, cpu) == node]
        running = nr_running_on(k, node) + 1
        imbalance = running - (nr_running_on(k, own) - 1)
        allowed_here = imbalance <= 0 or (imbalance <= NUMA_IMBALANCE_MIN and running <= max(1, len(cpus) >> 3))
        idle = [cpu for cpu in cpus if cpu in task.cpus_allowed and not k.rqs[cpu].queue]
        if idle and allowed_here:
            return idle[0]
    return -1


def nr_running_on(k: Kernel, node: int) -> int:
    """Tasks that run or wait on a node's processors, the one that makes a client's call included."""
    calls = k.current is not None and k.current.program is None and cpu_to_node(k, k.current.cpu) == node
    return calls + sum(len(rq.queue) for rq in k.rqs if cpu_to_node(k, rq.number) == node)


def migrate_task_to(k: Kernel, task: Task, cpu: int) -> None:
    """A task goes on on another processor (migrate_task_to): in the middle of a client's call, or a program between two slices."""
    se, source, rq = task.se, task.cpu, k.rqs[cpu]
    task.cpu = cpu
    if task.program is None:
        assert task.mm is not None
        psi.set_state(k, task, psi.RUNNING | psi.ONCPU)
        tlb.switch_mm(k, cpu, task.mm)
        k.clock.spend(k.costs.context_switch)
    elif se.on_rq:
        k.rqs[source].queue.remove(task.pid)
        rq.idle_to(se.ready_ns)
        se.vruntime += rq.min_vruntime - k.rqs[source].min_vruntime
        rq.queue.append(task.pid)
        psi.task_change(k, task.pid, cpu, task.cgroup, se.ready_ns, psi.RUNNING)
    k.emit(SchedMoveNuma(k.clock.now, task.pid, source, cpu_to_node(k, source), cpu, cpu_to_node(k, cpu)))


def follow_memory(k: Kernel, task: Task) -> None:
    """After a slice: where NUMA balancing wanted the task to go, if it still may."""
    numa = task.numa
    if numa is not None and numa.move_to >= 0:
        cpu, numa.move_to = numa.move_to, -1
        if cpu in task.cpus_allowed and not k.rqs[cpu].queue:
            migrate_task_to(k, task, cpu)


# ---------------------------------------------------------------- time


def run_until(k: Kernel, until: int) -> None:
    """Let time pass up to `until`: timers fire, kswapd works, programs run on their processors, in order of time.

    Ends early when the work that the caller allows (`k.work_left`) is used up, or the machine panics; the clock says when.
    """
    clock = k.clock
    reached = clock.now
    k.unordered = True
    while k.panicked is None:
        if unbalanced(k):
            new_idle_balance(k, reached)
        rq = next_rq(k)
        node = next_kswapd(k)
        at = min(NEVER if rq is None else rq.now, NEVER if node is None else k.kswapd[node]["until"])
        due = min(clock.timers[0][0], page_writeback.next_chunk(k))
        if min(at, due) > until or (at >= until and due > until):
            reached = until
            break
        reached = max(reached, min(at, due))
        if k.work_left <= 0:
            break
        if k.watch is not None:
            k.watch(0)
        if k.nr_events - k.nr_ordered >= MANY_EVENTS:
            clock.now = reached
            k.order_events()
            k.unordered = True
            if k.pause is not None:
                k.pause()
        if due <= at and due < clock.timers[0][0]:
            clock.now = due
            with k.by_itself("flusher"):
                page_writeback.run_flushers(k)
        elif due <= at:
            fire(k)
        elif node is not None and k.kswapd[node]["until"] == at:
            kswapd_round(k, node, at)
        else:
            assert rq is not None
            run_slice(k, rq, until)
    clock.now = reached
    for rq in k.rqs:
        if not rq.queue:
            rq.idle_to(reached)


def fire(k: Kernel) -> None:
    """The timer that is due does its work; if it is a daemon's its time passes on the last processor."""
    k.fire(k.clock.take())
    rq = k.rqs[-1]
    took = k.clock.now - k.clock.fired
    if took:
        if not rq.queue:
            rq.idle_to(k.clock.fired)
        rq.run(0, took)


def next_rq(k: Kernel) -> Rq | None:
    """The processor that is furthest behind of those with something to run; the lowest number of several."""
    best = None
    for rq in k.rqs:
        if rq.queue:
            ready = k.tasks[rq.queue[0]].se.ready_ns
            if ready > rq.now:
                rq.idle_to(min(k.tasks[pid].se.ready_ns for pid in rq.queue))
            if best is None or rq.now < best.now:
                best = rq
    return best


def pick_next(k: Kernel, rq: Rq) -> Task:
    """Who has had the least; of several who came first."""
    if len(rq.queue) == 1:
        return k.tasks[rq.queue[0]]
    ready = [k.tasks[pid] for pid in rq.queue if k.tasks[pid].se.ready_ns <= rq.now]
    return min(ready, key=lambda task: task.se.vruntime)


def run_slice(k: Kernel, rq: Rq, until: int) -> None:
    """One task runs on a processor until its slice is over, it sleeps or it ends (__schedule)."""
    task, clock = pick_next(k, rq), k.clock
    se = task.se
    alone = len(rq.queue) == 1
    start = clock.now = rq.now
    clock.begin_slice(start + sched_slice(k, len(rq.queue)))
    user, asleep, others = clock.user_ns, clock.asleep_ns, clock.others_ns
    psi.task_change(k, task.pid, rq.number, task.cgroup, start, psi.RUNNING | psi.ONCPU)
    if rq.last != task.pid:
        rq.last = task.pid
        rq.switches += 1
        clock.spend(k.costs.context_switch)
    task.state = "running"
    wake_at, why = k.run_program(task, horizon(k, start, until) if alone else clock.slice_end)
    clock.end_slice()
    user, asleep = clock.user_ns - user, clock.asleep_ns - asleep
    system = clock.now - start - user - asleep - (clock.others_ns - others)
    rq.run(user, system)
    task.utime_ns += user
    task.stime_ns += system
    se.vruntime += user + system
    if task.program is not None:
        put_prev(k, rq, task, asleep, wake_at, why)
        follow_memory(k, task)
    if not rq.queue:  # to the idle task
        rq.last, rq.switches = 0, rq.switches + 1
    least = min(se.vruntime, *(k.tasks[pid].se.vruntime for pid in rq.queue)) if rq.queue else se.vruntime
    rq.min_vruntime = max(rq.min_vruntime, least)


def horizon(k: Kernel, start: int, until: int) -> int:
    """Until when a task that has its processor to itself may compute in one go: the next timer, a long stretch, the end of it all."""
    due = k.clock.timers[0][0] if k.clock.timers else NEVER
    return max(k.clock.slice_end, min(due, start + HORIZON_NS, until))


def put_prev(k: Kernel, rq: Rq, task: Task, asleep: int, wake_at: int, why: str) -> None:
    """After its slice: asleep, or at the end of the queue."""
    now = k.clock.now
    if asleep:  # it waited for the disk or in a throttle at the end, and wakes now
        rq.io_until = max(rq.io_until, now)
        sleep_until(k, task, max(now, wake_at), "blocked" if wake_at <= now else why)
        psi.task_change(k, task.pid, task.cpu, task.cgroup, now, 0)
    elif wake_at > now:
        sleep_until(k, task, wake_at, why)
        psi.task_change(k, task.pid, task.cpu, task.cgroup, now, 0)
    else:
        task.se.ready_ns = rq.now
        rq.queue.remove(task.pid)
        rq.queue.append(task.pid)
        psi.task_change(k, task.pid, task.cpu, task.cgroup, now, psi.RUNNING)
    task.state = state_of(task)


# ---------------------------------------------------------------- kswapd


def next_kswapd(k: Kernel) -> int | None:
    """The node whose kswapd is awake and furthest behind."""
    awake = [node for node in range(k.nr_nodes) if k.kswapd[node]["awake"]]
    return min(awake, key=lambda node: k.kswapd[node]["until"], default=None)


def kswapd_round(k: Kernel, node: int, at: int) -> None:
    """kswapd goes on by itself, between the slices."""
    k.clock.now = at
    k.work_left -= KSWAPD_WORK
    kswapd_works(k, node)


def kswapd_works(k: Kernel, node: int, rounds: int = 1) -> bool:
    """kswapd of a node works for some rounds, in a turn; True when it is done and sleeps."""
    with kswapd_turn(k, node):
        return vmscan.kswapd_run(k, node, rounds)


KSWAPD_WORK = 64  # accesses that a round counts as


class kswapd_turn:
    """What happens inside takes kswapd's time: beside the running task's, or before it if they have one processor."""

    __slots__ = ("k", "node", "start", "begin", "outer")

    def __init__(self, k: Kernel, node: int) -> None:
        self.k, self.node = k, node

    def __enter__(self) -> None:
        k = self.k
        self.start, self.outer = k.clock.now, k.in_memstall
        k.clock.now = self.begin = max(self.start, k.kswapd[self.node]["until"])
        k.in_memstall = k.unordered = True  # a stall of kswapd's own

    def __exit__(self, *failure: object) -> None:
        k, node, begin = self.k, self.node, self.begin
        k.in_memstall = self.outer
        took, task = k.clock.now - begin, k.current
        rq = kswapd_rq(k, node)
        k.kswapd[node]["until"] = begin + took
        k.kswapd[node]["time_ns"] += took
        k.clock.now = self.start
        if task is not None and rq.number == task.cpu:
            k.clock.spend(took)
            k.clock.others_ns += took
        elif not rq.queue:
            rq.idle_to(self.start)
        rq.run(0, took)
        kswapd_worked(k, node, rq, begin, took)


def kswapd_worked(k: Kernel, node: int, rq: Rq, begin: int, took: int) -> None:
    """kswapd ran on a processor: a stall from beginning to end."""
    if took:
        psi.task_change(k, -1 - node, rq.number, k.root_cgroup, begin, psi.RUNNING | psi.ONCPU | psi.MEMSTALL)
        psi.task_change(k, -1 - node, rq.number, k.root_cgroup, begin + took, 0)


def kswapd_rq(k: Kernel, node: int) -> Rq:
    """The least busy processor of the node that is not the running task's, if there is one."""
    per_node = max(1, k.nr_cpus // k.nr_nodes)
    first = min(node * per_node, k.nr_cpus - 1)
    own = k.rqs[first : k.nr_cpus if node == k.nr_nodes - 1 else first + per_node]
    busy = k.current.cpu if k.current is not None else -1
    return min(own, key=lambda rq: (rq.number == busy, len(rq.queue), -rq.number))


# ---------------------------------------------------------------- what files show


def nr_running(k: Kernel) -> int:
    """Tasks on a run queue."""
    return sum(len(rq.queue) for rq in k.rqs)


def cpu_times(k: Kernel, cpu: int) -> tuple[int, int, int, int]:
    """user, system, idle and iowait of a processor up to now, ns."""
    rq = k.rqs[cpu]
    idle = max(0, k.clock.now - rq.now)
    waiting = max(0, min(rq.io_until, k.clock.now) - rq.now)
    return rq.user_ns, rq.system_ns, rq.idle_ns + idle - waiting, rq.iowait_ns + waiting


def nr_blocked(k: Kernel) -> int:
    """Tasks in uninterruptible sleep."""
    return sum(task.state == "blocked" for task in k.tasks.values())


def calc_load(k: Kernel) -> None:
    """The load averages' sample of every 5 s (calc_global_load)."""
    active = (nr_running(k) + nr_blocked(k)) * psi.FIXED_1
    k.loadavg = [psi.calc_load(load, exp, active) for load, exp in zip(k.loadavg, LOAD_EXP, strict=True)]
    k.clock.at(k.clock.fired + LOAD_FREQ_NS, "loadavg")
