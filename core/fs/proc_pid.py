"""/proc/<pid>: a process's memory as Linux shows it (fs/proc/base.c, array.c, task_mmu.c).

A zombie has no address space left: its maps and smaps are empty, its status lacks the Vm lines, its stat shows zeros. Counts per mapping
(Rss, Pss, ...) come from walks over the real page tables (`mm.smaps`); everything else is a field of the task or its mm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.abi.mman import (
    TASK_SIZE,
    VM_EXEC,
    VM_FLAG_LETTERS,
    VM_HUGETLB,
    VM_MAYSHARE,
    VM_READ,
    VM_WRITE,
)
from core.abi.signal import SIGNALS
from core.fs import derived
from core.fs.derived import CLOCK_TICK_NS, PAGE
from core.fs.node import FsError, bit_list, bit_map, escape, parse_int
from core.mm import cpuset, huge_memory, mempolicy, mmzone, oom_kill, smaps
from core.mm.util import capable, total_swap_pages, totalram_pages
from core.sched.task import PROTECTED

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mempolicy import Mempolicy
    from core.mm.mm_types import Mm, Vma
    from core.sched.task import Task

NAME_COLUMN = 72  # where seq_pad ends; one blank more, then the name
PAGEMAP_ENTRY = 8
PAGEMAP_MOST = 64 << 20  # bytes in one answer: 8 Mi entries, 32 GiB of addresses
RLIM_INFINITY = (1 << 64) - 1
PF_FORKNOEXEC, PF_EXITING, PF_KTHREAD = 0x40, 0x4, 0x200000
MAX_NUMNODES = 1024
OOM_DISABLE, OOM_ADJUST_MAX, OOM_SCORE_ADJ_MAX = -17, 15, 1000
STATES = {"running": "R (running)", "sleeping": "S (sleeping)", "zombie": "Z (zombie)", "dead": "X (dead)", "stopped": "T (stopped)",
          "blocked": "D (disk sleep)"}


# ---------------------------------------------------------------- maps and smaps

def maps(k: Kernel, task: Task) -> str:
    """One line a mapping, in address order (fs/proc/task_mmu.c:show_map_vma)."""
    return "".join(map_line(task.mm, vma) for vma in task.mm.vmas) if task.mm else ""


def map_line(mm: Mm, vma: Vma) -> str:
    """`start-end perms offset dev inode` and, from column 73 on, the name."""
    file = vma.file
    dev, ino, offset = (file.dev, file.ino, vma.pgoff << 12) if file else ((0, 0), 0, 0)
    head = f"{vma.start << 12:08x}-{vma.end << 12:08x} {permissions(vma)} {offset:08x} {dev[0]:02x}:{dev[1]:02x} {ino} "
    name = vma_name(mm, vma)
    return f"{head:<{NAME_COLUMN}} {escape(name, chr(10))}\n" if name else head + "\n"


def permissions(vma: Vma) -> str:
    """rwxp or rwxs."""
    letters = ((VM_READ, "r"), (VM_WRITE, "w"), (VM_EXEC, "x"))
    return "".join(letter if vma.flags & bit else "-" for bit, letter in letters) + ("s" if vma.flags & VM_MAYSHARE else "p")


def vma_name(mm: Mm, vma: Vma) -> str:
    """A file's path, [vdso], [heap], [stack] or nothing (get_vma_name)."""
    if vma.file:
        return vma.file.path
    return vma.name or ("[heap]" if is_heap(mm, vma) else "[stack]" if is_stack(mm, vma) else "")


def is_heap(mm: Mm, vma: Vma) -> bool:
    """The mapping overlaps start_brk..brk."""
    return vma.start << 12 <= mm.brk and vma.end << 12 >= mm.start_brk > 0


def is_stack(mm: Mm, vma: Vma) -> bool:
    """The mapping holds the address where the stack began."""
    return vma.start << 12 <= mm.start_stack <= vma.end << 12 and mm.start_stack > 0


# smaps: label, key of smaps.account; the order is the file's
ROLLUP_PSS = ("Pss_Anon", "Pss_File", "Pss_Shmem")
SMAPS_KEYS = (
    "Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty", "Referenced", "Anonymous", "LazyFree",
    "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss", "Locked",
)  # fmt: skip


def _kb_line(label: str, kb: int) -> str:
    return f"{label + ':':<16}{kb:8d} kB\n"


def _account_lines(sums: dict[str, int], rollup: bool) -> str:
    keys = [key for label in SMAPS_KEYS for key in ((label, *ROLLUP_PSS) if rollup and label == "Pss_Dirty" else (label,))]
    return "".join(_kb_line(key, int(sums[key]) >> 10) for key in keys)


def show_smaps(k: Kernel, task: Task) -> str:
    """Every mapping with what is resident in it (show_smap)."""
    return "".join(_smap(k, task.mm, vma) for vma in task.mm.vmas) if task.mm else ""


def _smap(k: Kernel, mm: Mm, vma: Vma) -> str:
    size = page_kb(vma)
    head = _kb_line("Size", vma.pages * 4) + _kb_line("KernelPageSize", size) + _kb_line("MMUPageSize", size)
    tail = f"THPeligible:    {int(thp_eligible(k, mm, vma))}\nProtectionKey:  {0:8d}\nVmFlags: {vm_flags(vma)}\n"
    return map_line(mm, vma) + head + _account_lines(smaps.account(k, vma), False) + tail


def page_kb(vma: Vma) -> int:
    """kB of the pages that a mapping has (vma_kernel_pagesize)."""
    return vma.file.hstate.size >> 10 if vma.file is not None and vma.file.hstate is not None else 4


def vm_flags(vma: Vma) -> str:
    """The mapping's flags as two letters and a blank each, in bit order."""
    return "".join(letters + " " for bit, letters in VM_FLAG_LETTERS.items() if vma.flags & bit)


def thp_eligible(k: Kernel, mm: Mm, vma: Vma) -> bool:
    """Whether a huge page might be mapped in this mapping (mm/huge_memory.c:hugepage_vma_check)."""
    return huge_memory.hugepage_vma_check(k, vma, smaps=True)


def smaps_rollup(k: Kernel, task: Task) -> str:
    """The sums of smaps over all mappings (show_smaps_rollup). ESRCH for a zombie."""
    mm = task.mm
    if mm is None:
        raise FsError("ESRCH", f"process {task.pid} has exited: it has no address space")
    sums: dict[str, int] = dict.fromkeys((*SMAPS_KEYS, *ROLLUP_PSS), 0)
    for vma in mm.vmas:
        for key, value in smaps.account(k, vma).items():
            sums[key] += int(value)
    start, end = (mm.vmas[0].start << 12, mm.vmas[-1].end << 12) if mm.vmas else (0, 0)
    head = f"{start:08x}-{end:08x} ---p 00000000 00:00 0 "
    return f"{head:<{NAME_COLUMN}} [rollup]\n" + _account_lines(sums, True)


def numa_maps(k: Kernel, task: Task) -> str:
    """Policy, kind and pages by node of each mapping (show_numa_map)."""
    return "".join(_numa_map(k, task, vma) for vma in task.mm.vmas) if task.mm else ""


def _numa_map(k: Kernel, task: Task, vma: Vma) -> str:
    assert task.mm is not None
    words = [f"{vma.start << 12:08x}", policy(mempolicy.policy_of(task, vma))]
    if vma.file:
        words.append("file=" + escape(vma.file.path, "\n\t= "))
    elif is_heap(task.mm, vma):
        words.append("heap")
    elif is_stack(task.mm, vma):
        words.append("stack")
    if vma.flags & VM_HUGETLB:
        words.append("huge")
    counts = smaps.numa_maps(k, vma)
    if counts["pages"]:
        words += [*_numa_counts(counts), f"kernelpagesize_kB={page_kb(vma)}"]
    return " ".join(words) + "\n"


def _numa_counts(c: dict[str, Any]) -> list[str]:
    """The counts that are worth a word: mapped if it is not all anonymous or all dirty, active if not every page is."""
    pages = c["pages"]
    wanted = {
        "anon": c["anon"] > 0, "dirty": c["dirty"] > 0, "mapped": pages != c["anon"] and pages != c["dirty"], "mapmax": c["mapmax"] > 1,
        "swapcache": c["swapcache"] > 0, "active": c["active"] < pages, "writeback": c["writeback"] > 0,
    }  # fmt: skip
    shown = {"mapped": pages}
    words = [f"{key}={shown.get(key, c.get(key))}" for key, want in wanted.items() if want]
    return words + [f"N{node}={n}" for node, n in sorted(c["nodes"].items()) if n]


def policy(of: Mempolicy | None) -> str:
    """A memory policy as mpol_to_str prints it: default, local, prefer:0, bind:0-1, interleave:0-1."""
    if of is None or of.mode == "default":
        return "default"
    names = {"preferred": "prefer", "preferred_many": "prefer (many)"}
    name = names.get(of.mode, of.mode) + (f"={of.how}" if of.how else "")
    return f"{name}:{bit_list(list(of.nodes))}" if of.nodes else name


# ---------------------------------------------------------------- status, stat, statm

def status(k: Kernel, task: Task) -> str:
    """Names, ids, memory, signals, capabilities, CPUs and nodes (fs/proc/array.c:proc_pid_status)."""
    return _identity(task) + (_memory(k, task.mm) if task.mm else "") + _rest(k, task)


def _identity(task: Task) -> str:
    pid, ids = task.pid, "\t".join([str(task.uid)] * 4)
    return (
        f"Name:\t{escape(task.comm, chr(10) + chr(92))}\nUmask:\t0022\nState:\t{STATES[task.state]}\n"
        f"Tgid:\t{pid}\nNgid:\t0\nPid:\t{pid}\nPPid:\t{task.ppid}\nTracerPid:\t0\nUid:\t{ids}\nGid:\t{ids}\nFDSize:\t256\nGroups:\t \n"
        f"NStgid:\t{pid}\nNSpid:\t{pid}\nNSpgid:\t0\nNSsid:\t0\n"
    )


def _memory(k: Kernel, mm: Mm) -> str:
    """The Vm lines, kB (fs/proc/task_mmu.c:task_mem)."""
    anon, file, shmem, swap = derived.rss(k, mm)
    total = anon + file + shmem
    text = min(text_pages(mm), mm.exec_vm)
    pages = [
        ("VmPeak", max(mm.hiwater_vm, mm.total_vm)), ("VmSize", mm.total_vm), ("VmLck", mm.locked_vm), ("VmPin", mm.pinned_vm),
        ("VmHWM", max(mm.hiwater_rss, total)), ("VmRSS", total), ("RssAnon", anon), ("RssFile", file), ("RssShmem", shmem),
        ("VmData", mm.data_vm), ("VmStk", mm.stack_vm), ("VmExe", text), ("VmLib", mm.exec_vm - text),
        ("VmPTE", derived.pgtables_bytes(k, mm) // PAGE), ("VmSwap", swap), ("HugetlbPages", mm.hugetlb_usage),
    ]  # fmt: skip
    return "".join(f"{label}:\t{n * 4:8d} kB\n" for label, n in pages) + f"CoreDumping:\t0\nTHP_enabled:\t{int(not mm.thp_disable)}\n"


def text_pages(mm: Mm) -> int:
    """Pages of the program's code as exec placed it: start_code rounded down to end_code rounded up."""
    return -(-mm.end_code // PAGE) - mm.start_code // PAGE


CAPABILITIES = (1 << 41) - 1


def caught(task: Task) -> int:
    """The signals the program handles, as a mask."""
    return sum(1 << SIGNALS[name] - 1 for name in ("SIGSEGV", "SIGBUS")) if task.catch_signals else 0


def _rest(k: Kernel, task: Task) -> str:
    nodes = cpuset.mems_allowed(k, task)
    cpus = sorted(task.cpus_allowed)
    zero, held = "0" * 16, CAPABILITIES if capable(task) else 0
    return (
        f"Threads:\t1\nSigQ:\t0/{default_threads(k)}\nSigPnd:\t{zero}\nShdPnd:\t{zero}\nSigBlk:\t{zero}\nSigIgn:\t{zero}\nSigCgt:\t{caught(task):016x}\n"
        f"CapInh:\t{zero}\nCapPrm:\t{held:016x}\nCapEff:\t{held:016x}\nCapBnd:\t{CAPABILITIES:016x}\nCapAmb:\t{zero}\n"
        "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\nSpeculation_Store_Bypass:\tnot vulnerable\nSpeculationIndirectBranch:\talways enabled\n"
        f"Cpus_allowed:\t{bit_map(cpus, k.nr_cpus)}\nCpus_allowed_list:\t{bit_list(cpus)}\n"
        f"Mems_allowed:\t{bit_map(nodes, MAX_NUMNODES)}\nMems_allowed_list:\t{bit_list(nodes)}\n"
        "voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n"
    )


def stat(k: Kernel, task: Task) -> str:
    """52 numbers on one line (do_task_stat); proc(5) numbers them from 1."""
    mm = task.mm
    flags = PF_KTHREAD if task.kthread else PF_FORKNOEXEC | (PF_EXITING if task.state == "zombie" else 0)
    code = [mm.start_code, mm.end_code, mm.start_stack] if mm else [0, 0, 0]
    data = [mm.start_data, mm.end_data, mm.start_brk] if mm else [0, 0, 0]
    strings = [mm.start_stack] * 4 if mm else [0] * 4  # arguments and environment: empty, at the top of the stack
    size, resident = (mm.total_vm * PAGE, derived.resident(k, mm)) if mm else (0, 0)
    numbers = [
        task.ppid, 0, 0, 0, -1, flags, task.minflt, task.cminflt, task.majflt, task.cmajflt,  # 4-13
        task.utime_ns // CLOCK_TICK_NS, task.stime_ns // CLOCK_TICK_NS, 0, 0, 20, 0, 1, 0, task.start_ns // CLOCK_TICK_NS, size, resident, RLIM_INFINITY,  # 14-25
        *code, 0, 0, 0, 0, 0, caught(task), int(task.state != "running"), 0, 0, SIGNALS["SIGCHLD"], task.cpu, 0, 0, 0, 0, 0,  # 26-44
        *data, *strings, wait_status(task),  # 45-52
    ]  # fmt: skip
    return f"{task.pid} ({task.comm}) {STATES[task.state][0]} " + " ".join(map(str, numbers)) + "\n"


def wait_status(task: Task) -> int:
    """The exit code as wait(2) encodes it: status in the second byte, the killing signal in the first."""
    return task.exit_code << 8 | task.exit_signal if task.state == "zombie" else 0


def statm(k: Kernel, task: Task) -> str:
    """Pages: size resident shared text 0 data 0."""
    mm = task.mm
    if mm is None:
        return "0 0 0 0 0 0 0\n"
    _, file, shmem, _ = derived.rss(k, mm)
    return f"{mm.total_vm} {derived.resident(k, mm)} {file + shmem} {text_pages(mm)} 0 {mm.data_vm + mm.stack_vm} 0\n"


# ---------------------------------------------------------------- OOM

def oom_score(k: Kernel, task: Task) -> str:
    """(1000 + badness * 1000 / total) * 2/3; 0 for a task that is never chosen (proc_oom_score)."""
    total = totalram_pages(k) + total_swap_pages(k)
    return f"{oom_kill.oom_score(oom_kill.oom_badness(k, task, total), total)}\n"


def oom_score_adj(k: Kernel, task: Task) -> str:
    """-1000..1000."""
    return f"{task.oom_score_adj}\n"


def write_oom_score_adj(k: Kernel, task: Task, text: str) -> None:
    """Set it; as root, the floor for later unprivileged writes with it."""
    task.oom_score_adj = task.oom_score_adj_min = parse_int(text, -1000, 1000, "oom_score_adj")


def oom_adj(k: Kernel, task: Task) -> str:
    """The old scale, -17..15."""
    adj = task.oom_score_adj
    if adj == OOM_SCORE_ADJ_MAX:
        return f"{OOM_ADJUST_MAX}\n"
    scaled = abs(adj) * -OOM_DISABLE // OOM_SCORE_ADJ_MAX * (1 if adj >= 0 else -1)
    return f"{min(scaled, OOM_ADJUST_MAX)}\n"


def write_oom_adj(k: Kernel, task: Task, text: str) -> None:
    """-17 never kill, 15 kill first; between, adj * 1000 / 17 (oom_adj_write)."""
    adj = parse_int(text, OOM_DISABLE, OOM_ADJUST_MAX, "oom_adj")
    scaled = abs(adj) * OOM_SCORE_ADJ_MAX // -OOM_DISABLE * (1 if adj >= 0 else -1)
    task.oom_score_adj = OOM_SCORE_ADJ_MAX if adj == OOM_ADJUST_MAX else scaled
    k.log(4, f"{task.comm} ({task.pid}): /proc/{task.pid}/oom_adj is deprecated, please use /proc/{task.pid}/oom_score_adj instead.")


# ---------------------------------------------------------------- the rest

def pagemap_size(k: Kernel, task: Task) -> int:
    """Eight bytes for every page a user address may have: 256 GiB, nearly all of it zero; 0 for a zombie."""
    return TASK_SIZE // PAGE * PAGEMAP_ENTRY if task.mm else 0


def pagemap(k: Kernel, task: Task, offset: int, length: int) -> bytes:
    """Entries of a range: EINVAL if it is not in whole entries (pagemap_read)."""
    if offset % PAGEMAP_ENTRY or length % PAGEMAP_ENTRY:
        raise FsError("EINVAL", f"offset and length must be multiples of {PAGEMAP_ENTRY}: one entry a page, at address / 4096 * 8")
    if length > PAGEMAP_MOST:
        raise FsError("EINVAL", f"at most {PAGEMAP_MOST} bytes of pagemap in one read, not {length}")
    if task.mm is None:
        return b""
    count = min(length, pagemap_size(k, task) - offset) // PAGEMAP_ENTRY
    return smaps.pagemap(k, task.mm, offset // PAGEMAP_ENTRY, count) if count > 0 else b""


SOFT_DIRTY = 4  # of clear_refs: write-protects every page


def clear_refs(k: Kernel, task: Task, text: str) -> None:
    """1 all, 2 anonymous, 3 file: forget that pages were accessed; 4: soft-dirty; 5: reset VmHWM."""
    kind = parse_int(text, 1, 5, "clear_refs")
    if task.mm is None:
        return
    smaps.clear_refs(k, task.mm, kind)
    if kind == SOFT_DIRTY:
        task.returning = task.returning or PROTECTED


def comm(k: Kernel, task: Task) -> str:
    """The name, at most 15 characters."""
    return task.comm + "\n"


def write_comm(k: Kernel, task: Task, text: str) -> None:
    """Rename the process; longer names are cut."""
    task.comm = text[:15]


def cmdline(k: Kernel, task: Task) -> str:
    """The only argument is the program's name; a zombie has none."""
    return task.comm + "\0" if task.mm else ""


def environ(k: Kernel, task: Task) -> str:
    """Programs here have no environment."""
    return ""


def cgroup(k: Kernel, task: Task) -> str:
    """0::/path (proc_cgroup_show)."""
    return f"0::{task.cgroup.path}{' (deleted)' if task.cgroup.dying else ''}\n"


NICE_0_LOAD = 1 << 20


def sched(k: Kernel, task: Task) -> str:
    """What the scheduler and NUMA balancing know about the process (kernel/sched/debug.c:proc_sched_show_task)."""
    runtime, numa = task.utime_ns + task.stime_ns, task.numa
    virtual = task.se.vruntime if task.se is not None else runtime
    lines = [f"{task.comm} ({task.pid}, #threads: 1)", "-" * 67]
    lines += [f"{name:<45}:{ns // 10**6:14}.{ns % 10**6:06}"
              for name, ns in (("se.exec_start", k.clock.now), ("se.vruntime", virtual), ("se.sum_exec_runtime", runtime))]  # fmt: skip
    numbers = [("se.nr_migrations", 0), ("nr_switches", 0), ("nr_voluntary_switches", 0), ("nr_involuntary_switches", 0),
               ("se.load.weight", NICE_0_LOAD), ("policy", 0), ("prio", 120), ("clock-delta", 0)]  # fmt: skip
    if task.mm is not None:
        numbers.append(("mm->numa_scan_seq", task.mm.numa_scan_seq))
    faults = numa.faults if numa is not None else [[0, 0]] * k.nr_nodes
    numbers += [("numa_pages_migrated", numa.pages_migrated if numa is not None else 0),
                ("numa_preferred_nid", numa.preferred_nid if numa is not None else -1),
                ("total_numa_faults", sum(map(sum, faults)))]  # fmt: skip
    lines += [f"{name:<45}:{value:21}" for name, value in numbers]
    lines.append(f"current_node={mmzone.cpu_to_node(k, task.cpu)}, numa_group_id=0")
    lines += [f"numa_faults node={node} task_private={private} task_shared={shared} group_private=0 group_shared=0"
              for node, (shared, private) in enumerate(faults)]  # fmt: skip
    return "\n".join(lines) + "\n"


# name, key in task.rlimits or a fixed (soft, hard), unit; None is unlimited
LIMITS: tuple[tuple[str, str | tuple[int | None, int | None], str], ...] = (
    ("Max cpu time", (None, None), "seconds"), ("Max file size", (None, None), "bytes"), ("Max data size", "data", "bytes"),
    ("Max stack size", "stack", "bytes"), ("Max core file size", (0, None), "bytes"), ("Max resident set", (None, None), "bytes"),
    ("Max processes", "threads", "processes"), ("Max open files", (1024, 4096), "files"), ("Max locked memory", "memlock", "bytes"),
    ("Max address space", "as", "bytes"), ("Max file locks", (None, None), "locks"), ("Max pending signals", "threads", "signals"),
    ("Max msgqueue size", (819200, 819200), "bytes"), ("Max nice priority", (0, 0), ""), ("Max realtime priority", (0, 0), ""),
    ("Max realtime timeout", (None, None), "us"),
)  # fmt: skip


def limits(k: Kernel, task: Task) -> str:
    """Resource limits, soft and hard (fs/proc/base.c:proc_pid_limits)."""
    out = f"{'Limit':<25} {'Soft Limit':<20} {'Hard Limit':<20} {'Units':<10}\n"
    for name, of, unit in LIMITS:
        soft, hard = _limit(k, task, of) if isinstance(of, str) else of
        cells = ["unlimited" if value is None else str(value) for value in (soft, hard)]
        out += f"{name:<25} {cells[0]:<20} {cells[1]:<20} " + (f"{unit:<10}\n" if unit else "\n")
    return out


def default_threads(k: Kernel) -> int:
    """RLIMIT_NPROC and RLIMIT_SIGPENDING: half of what 1/8 of memory gives in stacks of 16 KiB, counted before boot frees its own (fork_init)."""
    early = mmzone.EARLY_FIRST + mmzone.EARLY_LAST
    return (totalram_pages(k) - early) * PAGE // (16384 * 8) // 2


def _limit(k: Kernel, task: Task, resource: str) -> tuple[int | None, int | None]:
    if resource == "threads":
        return default_threads(k), default_threads(k)
    soft = task.rlimits.get(resource)
    return soft, None if resource in ("as", "data", "stack") else soft
