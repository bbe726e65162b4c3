"""The system-call table: every operation that changes a kernel, one literal row each.

This is the one place that answers "what is there?". The service makes its routes, its request models, its batch and
journal union and the printed table of calls from it; `Kernel.call` finds the handler in it. To add a call: write its
function in `core/syscalls/{mm,process,numa,file}.py` and add its row here.

A row says
    number   x86-64's number of the call (arch/x86/entry/syscalls/syscall_64.tbl); None: not a call of Linux, but
             something a machine does (a CPU's accesses, a shell's `echo`, time that passes)
    support  "full": as Linux does it · "partial": the note says what differs · "none": answers ENOSYS
    note     what an honest reader has to know; empty where there is nothing to say
    doc      one sentence; the errnos are those of the manual page
    params   its arguments, by kind: kinds are parsed by the caller, a handler gets ints, strings and lists
    returns  the keys of its result, by kind
    process  True: made by a process (`handler(k, task, **args)`); False: by the machine (`handler(k, **args)`)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from core.machine import RECLAIM_POLICIES
from core.mm import policy_client
from core.syscalls import file, mm, numa, process

Support = Literal["full", "partial", "none"]
Handler = Callable[..., dict[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Param:
    """One argument: its kind, what it means, and what values it takes.

    kind: "int", "size" (bytes), "address", "str", "bool", "prot" ("rw", "none"), "flags" (a list of choices), "choice",
    "ints" (a list), "bytes", "duration" (ns), "signal", "program" (programs/program.py), "object". minimum and maximum bound ints, sizes and list members.
    """

    kind: str
    doc: str
    required: bool = True
    default: Any = None
    choices: tuple[str, ...] | None = None
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One row of the table; the fields are explained at the head of the file."""

    name: str
    number: int | None
    handler: Handler
    support: Support
    note: str
    doc: str
    params: dict[str, Param] = field(default_factory=dict)
    returns: dict[str, str] = field(default_factory=dict)
    process: bool = True


U64 = (1 << 64) - 1
I64 = (1 << 63) - 1
MAX_INDEX = (1 << 36) - 1  # page indices of a 48-bit address space

MMAP_FLAGS = (
    "private", "shared", "anonymous", "fixed", "fixed_noreplace", "populate", "noreserve", "locked", "hugetlb",
    "stack", "growsdown",
)  # fmt: skip
ADVICE = (
    "normal", "random", "sequential", "willneed", "dontneed", "free", "remove", "dontfork", "dofork", "mergeable",
    "unmergeable", "hugepage", "nohugepage", "dontdump", "dodump", "wipeonfork", "keeponfork", "cold", "pageout",
    "populate_read", "populate_write", "dontneed_locked", "collapse",
)  # fmt: skip
POLICIES = ("default", "preferred", "bind", "interleave", "local", "preferred_many")
MBIND_FLAGS = ("strict", "move", "move_all", "static_nodes", "relative_nodes")
RESOURCES = ("as", "data", "stack", "memlock")
FADVICE = ("normal", "random", "sequential", "willneed", "dontneed", "noreuse")
PRCTL = ("set_name", "set_thp_disable", "get_thp_disable")
ORDERS = ("sequential", "reverse", "random", "zipf")

# Arguments that many calls share
ADDRESS = Param("address", "Start of the range; a multiple of 4096.")
LENGTH = Param("size", "Length of the range in bytes; rounded up to whole pages.")
PATH = Param("str", "Path of a file on the simulated disk, for example /data/f.")
OFFSET = Param("size", "Where in the file, in bytes.", False, 0, maximum=I64)
NODES = Param("ints", "The NUMA nodes of the policy.", False, (), minimum=0, maximum=63)
MODE = Param("choice", "The memory policy.", choices=POLICIES)

_ROWS: tuple[Call, ...] = (
    # ---------------------------------------------------------------- mappings
    Call("mmap", 9, mm.sys_mmap, "partial", "align is ours.",
         "Map memory or a file: choose an address from mmap_base downwards, or take the one given.",
         {"length": Param("size", "Length in bytes; rounded up to whole pages."),
          "prot": Param("prot", "Access: letters of rwx, or none.", False, "rw"),
          "flags": Param("flags", "private or shared and more; left out: private, and anonymous if there is no file.", False, None,
                         MMAP_FLAGS),
          "address": Param("address", "A hint, or with fixed the very place.", False, 0),
          "align": Param("size", "The start shall be a multiple of this power of two.", False, 0, maximum=1 << 46),
          "file": Param("str", "Path of the file to map; without it the mapping must be anonymous.", False),
          "offset": Param("size", "Where in the file the mapping begins; a multiple of 4096.", False, 0),
          "huge_size": Param("size", "With hugetlb: bytes of its pages, 2M or 1G (MAP_HUGE_2MB, MAP_HUGE_1GB); left out: the default size.", False, 0)},
         {"address": "address"}),
    Call("munmap", 11, mm.sys_munmap, "full", "", "Remove the mappings of a range; a range without any is no error.",
         {"address": ADDRESS, "length": LENGTH}),
    Call("mprotect", 10, mm.sys_mprotect, "full", "", "Change the access of a range, splitting and merging mappings.",
         {"address": ADDRESS, "length": LENGTH, "prot": Param("prot", "The new access: letters of rwx, or none.")}),
    Call("mremap", 25, mm.sys_mremap, "full", "", "Grow, shrink or move a mapping; its pages move with their page-table entries.",
         {"address": ADDRESS,
          "old_length": Param("size", "The mapping's present length; 0 duplicates a shared mapping."),
          "new_length": Param("size", "Its new length."),
          "may_move": Param("bool", "MREMAP_MAYMOVE: another address will do if there is no room here.", False, True),
          "new_address": Param("address", "MREMAP_FIXED: move it to this place.", False),
          "dontunmap": Param("bool", "MREMAP_DONTUNMAP: leave the old mapping, emptied, where it was.", False, False)},
         {"address": "address"}),
    Call("brk", 12, mm.sys_brk, "full", "Takes a change, as sbrk() does, and answers ENOMEM where brk() returns the old break.",
         "Move the end of the heap.",
         {"increment": Param("int", "Bytes to add (negative: to give back; 0: ask).", False, 0, minimum=-I64, maximum=I64)},
         {"address": "address"}),
    Call("madvise", 28, mm.sys_madvise, "partial", "hugepage and collapse act on private anonymous memory; files and shared memory have small pages.",
         "Tell what a range will be used for, or what may be done with it.",
         {"address": ADDRESS, "length": LENGTH, "advice": Param("choice", "What is advised.", choices=ADVICE)}),
    Call("mlock", 149, mm.sys_mlock, "full", "onfault is mlock2's MLOCK_ONFAULT.", "Fault a range in and keep it in memory.",
         {"address": Param("address", "Start of the range; rounded down to a page."), "length": LENGTH,
          "onfault": Param("bool", "Lock pages as they are touched, not now.", False, False)}),
    Call("munlock", 150, mm.sys_munlock, "full", "", "Let a range be evictable again.",
         {"address": Param("address", "Start of the range; rounded down to a page."), "length": LENGTH}),
    Call("mlockall", 151, mm.sys_mlockall, "full", "", "Lock all mappings of a process, present or future.",
         {"flags": Param("flags", "current, future, onfault.", False, ("current",), ("current", "future", "onfault"))}),
    Call("munlockall", 152, mm.sys_munlockall, "full", "", "Unlock all mappings of a process.", {}),
    Call("msync", 26, mm.sys_msync, "full", "", "Write a shared file mapping's dirty pages to the disk.",
         {"address": ADDRESS, "length": LENGTH,
          "flags": Param("flags", "sync waits, async does nothing since 2.6.19, invalidate fails on locked mappings.", False, ("sync",),
                         ("sync", "async", "invalidate"))}),
    Call("mincore", 27, mm.sys_mincore, "full", "Answers the number of resident pages, not a vector.", "Ask how many pages of a range are in memory.",
         {"address": ADDRESS, "length": LENGTH}, {"resident": "int", "pages": "int"}),
    Call("touch", None, mm.sys_touch, "full", "Not a call of Linux: the CPU really makes these accesses, one a page, in this order.",
         "Read, write or execute one byte in each page of a range.",
         {"address": Param("address", "Where the accesses begin."),
          "length": Param("size", "Bytes; an access goes to each page that begins here (4096: one page).", False, 4096),
          "access": Param("choice", "What the CPU does.", False, "read", ("read", "write", "exec")),
          "stride": Param("int", "From one page to the next, in pages.", False, 1, minimum=1, maximum=MAX_INDEX),
          "order": Param("choice", "The order of the pages; random: each once; zipf: as many accesses, the first pages the most.", False,
                         "sequential", ORDERS),
          "seed": Param("int", "Of random and zipf.", False, 0, minimum=0, maximum=I64),
          "pages": Param("ints", "Which pages, by index from the address, in this order; length and order are not used.", False, None,
                         minimum=0, maximum=MAX_INDEX),
          "repeat": Param("int", "How many times over.", False, 1, minimum=1, maximum=1 << 32),
          "fill": Param("int", "A write: fill whole pages with this byte. Without it access i stores one byte, i + 1, at the start of its page.", False, None, minimum=0, maximum=255)},
         {"touched": "int"}),
    # ---------------------------------------------------------------- processes
    Call("fork", 57, process.sys_fork, "full", "", "Make a child: mappings copied, private anonymous pages shared copy-on-write.", {}, {"pid": "int"}),
    Call("exec", 59, process.sys_exec, "partial", "The program image is a model: code, data, heap, stack and a C library, the same for every path.",
         "Replace the address space by that of a fresh program.",
         {"path": Param("str", "The program; its base name becomes the process's comm.")}),
    Call("exit", 60, process.sys_exit, "full", "exit_group: our processes have one thread.", "End the process; its memory is given back.",
         {"status": Param("int", "Exit status.", False, 0, minimum=0, maximum=255)}),
    Call("kill", 62, process.sys_kill, "partial", "The process in the path is the target; handlers are not run (catch_signals covers SIGSEGV and SIGBUS).",
         "Send a signal to this process.", {"signal": Param("signal", "SIGKILL, 9, ...", False, "SIGTERM")}),
    Call("wait", 61, process.sys_wait, "partial", "Never blocks: with children but none dead it answers pid 0, as WNOHANG does.",
         "Reap a dead child and read how it ended.",
         {"child": Param("int", "The pid of this child, or -1 for any.", False, -1, minimum=-1, maximum=1 << 22)},
         {"pid": "int", "status": "int", "signal": "int"}),
    Call("program", None, process.sys_program, "full", "Not a call of Linux: what the process does by itself while the clock advances.",
         "Give the process a program of its own, or take it away.",
         {"program": Param("program", "A list of steps, an object, or a ready-made one by name; left out: none.", False)}),
    Call("setrlimit", 160, process.sys_setrlimit, "partial", "as, data, stack and memlock: the limits that memory management asks for.",
         "Set the soft and hard limit of a resource.",
         {"resource": Param("choice", "Which limit.", choices=RESOURCES),
          "limit": Param("size", "Bytes; left out: unlimited.", False)}),
    Call("prctl", 157, process.sys_prctl, "partial", "The options below only.", "Change a property of the process.",
         {"option": Param("choice", "Which property.", choices=PRCTL),
          "name": Param("str", "set_name: the new comm, cut at 15 bytes.", False),
          "value": Param("int", "set_thp_disable: 0 or 1.", False, 0, minimum=0, maximum=1)},
         {"value": "int"}),
    Call("setuid", 105, process.sys_setuid, "partial", "uid 0 has every capability, any other none; there are no saved or effective ids.",
         "Become another user: RLIMIT_MEMLOCK and the reserves of overcommit mode 2 then bind.",
         {"uid": Param("int", "The user.", minimum=0, maximum=(1 << 32) - 2)}),
    Call("sched_setaffinity", 203, process.sys_sched_setaffinity, "full", "", "Say which CPUs the process may run on; it moves to the first of them if it must.",
         {"cpus": Param("ints", "CPU numbers.", minimum=0, maximum=8191)}),
    # ---------------------------------------------------------------- NUMA
    Call("mbind", 237, numa.sys_mbind, "partial",
         "A huge page of shared memory that no 2 MiB are free for is split, and stays (move, move_all).",
         "Set the memory policy of a range.",
         {"address": ADDRESS, "length": LENGTH, "mode": MODE, "nodes": NODES,
          "flags": Param("flags", "What to do with pages in the wrong place, and how to read the nodes.", False, (), MBIND_FLAGS)}),
    Call("set_mempolicy", 238, numa.sys_set_mempolicy, "full", "",
         "Set the memory policy of the process.",
         {"mode": MODE, "nodes": NODES,
          "flags": Param("flags", "How to read the nodes.", False, (), ("static_nodes", "relative_nodes"))}),
    Call("migrate_pages", 256, numa.sys_migrate_pages, "partial", "Of the process itself; a huge page of shared memory that no 2 MiB are free for is split, and stays.",
         "Move a process's pages from some nodes to others; root's calls move those that others map, too.",
         {"old_nodes": Param("ints", "From.", minimum=0, maximum=63), "new_nodes": Param("ints", "To.", minimum=0, maximum=63)},
         {"not_moved": "int"}),
    Call("move_pages", 279, numa.sys_move_pages, "partial", "Of the process itself; a huge page of shared memory that no 2 MiB are free for is split, and stays.",
         "Ask on which node pages are, or move them.",
         {"address": ADDRESS, "pages": Param("ints", "Which pages, by index from the address.", minimum=0, maximum=MAX_INDEX),
          "nodes": Param("ints", "Where to move each.", False, None, minimum=0, maximum=63),
          "flags": Param("flags", "move_all: pages that others map, too (they are -EACCES else); needs CAP_SYS_NICE.", False, (), ("move", "move_all"))},
         {"status": "str", "not_moved": "int"}),
    # ---------------------------------------------------------------- files
    Call("read", 0, file.sys_read, "full", "Opens, reads and closes, as pread() in 64 KiB pieces does; the content itself is not simulated.",
         "Read a file through the page cache.",
         {"path": PATH, "offset": OFFSET, "length": Param("size", "Bytes to read; ends at the end of the file.")}, {"bytes": "int"}),
    Call("write", 1, file.sys_write, "full", "Opens (creating), writes and closes, as pwrite() in 64 KiB pieces does.",
         "Write a file through the page cache.",
         {"path": PATH, "offset": OFFSET, "length": Param("size", "Bytes to write.")}, {"bytes": "int"}),
    Call("fsync", 74, file.sys_fsync, "full", "", "Write a file's dirty pages to the disk.", {"path": PATH}),
    Call("fadvise", 221, file.sys_fadvise, "partial",
         "dontneed drops clean pages, willneed reads ahead; the others change the open file, which closes at once.",
         "Tell how a file will be used.",
         {"path": PATH, "advice": Param("choice", "What is advised.", choices=FADVICE), "offset": OFFSET,
          "length": Param("size", "Bytes; 0: to the end of the file.", False, 0, maximum=I64)}),
    Call("truncate", 76, file.sys_truncate, "full", "", "Set a file's size; cached and mapped pages beyond it go.",
         {"path": PATH, "length": Param("size", "The new size in bytes.")}),
    Call("fallocate", 285, file.sys_fallocate, "partial", "Files of hugetlbfs only; EOPNOTSUPP for others.",
         "Give a file of hugetlbfs its pages now, or take them away (punch_hole).",
         {"path": Param("str", "Path of a file of hugetlbfs, for example /dev/hugepages/f."), "offset": OFFSET,
          "length": Param("size", "Bytes of the range.", maximum=I64 >> 1),
          "flags": Param("flags", "keep_size; punch_hole frees the whole huge pages of the range.", False, (), ("keep_size", "punch_hole"))}),
    # ---------------------------------------------------------------- swap
    Call("swapon", 167, mm.sys_swapon, "partial", "A device that is not there yet is plugged in by the call, if size is given; mkswap is not needed.",
         "Put a swap device or a file of the disk to use.",
         {"path": Param("str", "The device, for example /dev/vdb, or the file, for example /data/swap."),
          "priority": Param("int", "Higher ones are filled first, equal ones in turn; left out: below all others.", False, None, minimum=0, maximum=32767),
          "size": Param("size", "Of a new device, in bytes.", False, None, maximum=1 << 40),
          "kind": Param("choice", "What a new device is.", False, "virtio", ("disk", "ssd", "nvme", "zram", "virtio"))}),
    Call("swapoff", 168, mm.sys_swapoff, "partial", "Shared memory is read back page by page, without read-ahead.",
         "Take a swap area out of use: what is there comes back to memory.", {"path": Param("str", "The device or file.")}),
    # ---------------------------------------------------------------- the machine
    Call("spawn", None, process.spawn, "full", "A program made from outside; it is a child of init (pid 1).", "Start a program.",
         {"comm": Param("str", "Its name; cut at 15 bytes."),
          "cgroup": Param("str", "Path of its cgroup.", False, "/"),
          "oom_score_adj": Param("int", "Its OOM adjustment.", False, 0, minimum=-1000, maximum=1000),
          "catch_signals": Param("bool", "It handles SIGSEGV and SIGBUS and lives on.", False, False),
          "program": Param("program", "What it does by itself: a list of steps, {steps, seed, at_end}, or a ready-made one by name, with parameters. A "
                           "string that begins with / is the path of its executable, as maps shows it.", False)},
         {"pid": "int"}, process=False),
    Call("put", None, file.put, "full", "echo data > path.", "Write one of the kernel's files.",
         {"path": Param("str", "For example /proc/sys/vm/swappiness."), "data": Param("bytes", "What is written."),
          "by": Param("int", "The process that writes, whose memory policy nr_hugepages_mempolicy goes by; root's shell else.", False)}, process=False),
    Call("mkdir", 83, file.mkdir, "full", "", "Make a directory: a cgroup below /sys/fs/cgroup.", {"path": Param("str", "Its path.")}, process=False),
    Call("rmdir", 84, file.rmdir, "full", "", "Remove a cgroup, or a file of /data or of a hugetlbfs.", {"path": Param("str", "Its path.")}, process=False),
    Call("create_file", None, file.create_file, "full", "Its content costs nothing.", "Put a file of random bytes on the simulated disk, or an empty one of huge pages on a hugetlbfs.",
         {"path": PATH, "size": Param("size", "Its size in bytes.", maximum=I64)}, process=False),
    Call("mount", 165, file.mount, "partial", "hugetlbfs only, in a directory of /mnt; there is one at /dev/hugepages from the start.",
         "Mount a hugetlbfs: files of pages of one size, with limits.",
         {"path": Param("str", "Where, for example /mnt/huge."),
          "page_size": Param("size", "pagesize=: 2M or 1G; left out: the default size.", False, 0),
          "size": Param("size", "size=: bytes that may be promised or used there.", False),
          "min_size": Param("size", "min_size=: bytes that are promised to the mount from the start.", False)}, process=False),
    Call("reclaim_policy", None, policy_client.reclaim_policy, "full", "Not a call of Linux, which chooses when it is built or by lru_gen/enabled. It takes no simulated time.",
         "Let another policy choose the pages that reclaim takes; client: a program on …/policy.",
         {"policy": Param("choice", "The policy.", choices=RECLAIM_POLICIES),
          "fallback": Param("choice", "Of client: who chooses where the program does not.", False, "fifo", choices=policy_client.FALLBACKS)}, process=False),
    Call("policy_answers", None, policy_client.policy_answers, "full", "Written by the service beside the operation that asked.",
         "What a client's policy answers when the next operation reclaims: the number of pages, the pages, and so on; -1: no answer.",
         {"answers": Param("ints", "Frames.")}, process=False),
    Call("vmstat", None, process.vmstat, "full", "", "Say how often a line of vmstat becomes an event and is kept.",
         {"interval": Param("duration", "Simulated time between two lines; 0: none; left out: a second, while programs run.", False,
                            minimum=0, maximum=10**15)}, process=False),
    Call("advance", None, process.advance, "full", "", "Let simulated time pass; the daemons and the programs run.",
         {"duration_ns": Param("duration", "How long.", minimum=0),
          "max_work": Param("int", "Accesses that programs may make meanwhile; then it ends early with EDQUOT, the clock where they came. A step counts as 16.",
                            False, process.MAX_WORK, minimum=1, maximum=1 << 40)},
         {"advanced_ns": "int", "work": "int", "stopped": "str"}, process=False),
)  # fmt: skip

CALLS: dict[str, Call] = {row.name: row for row in _ROWS}
