"""swapon and swapoff: areas come and go while the machine runs (mm/swapfile.c: swapon, swapoff, try_to_unuse).

*swapon* puts an area to use. Its first page is its header, so 64M give 16,383 slots. Without a priority of its own it gets the next one below all
that were given so: -2, -3, ... Areas with a higher priority are filled first; those with the same take turns.

*swapoff* takes one out: no new page goes there from now on, and what is there comes back: first the pages of shared memory, object by
object, then those of each process, entry by entry; what only the swap cache holds is dropped. The pages are in memory then, read-only and not
accessed, until somebody touches them; so RSS grows by what Swap shrinks, without a fault.

    512M, 100M of a process in swap, 300M free: swapoff brings 25,600 pages back; with 60M free it reclaims into other areas, or kills

Refused: more pages than could ever be there (ENOMEM, by the rules of overcommit for the size of the area), a device that is not in use
(EINVAL), anybody but root (EPERM). If memory runs out on the way the OOM killer takes the process that called swapoff before any other;
the area stays in use then.

A *swap file* is a file of the simulated disk that is used as an area: as fast as the disk, and in use until swapoff: it cannot be written, shortened
or removed meanwhile (ETXTBSY, EPERM).

Simplified: a device that was not there before is plugged in and formatted by swapon itself (`size`, `kind`), and a swap file needs no mkswap. Shared
memory is read back page by page, without read-ahead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from core.abi.errno import Errno, SysError
from core.abi.mman import PAGE_SIZE
from core.arena import arena
from core.jit import njit
from core.machine import ROTATIONAL, STORAGE_NS, SWAP_KINDS, SwapDevice
from core.mm import filemap, memory, shmem, util, zram
from core.mm.fault import do_swap_page
from core.mm.mm_types import CTL_SWAP_CACHE, CTL_SWAP_FREE, CTL_SWAP_TOTAL, CTL_VMA_RA, MAX_SWAPFILES, SLOT, State
from core.mm.page_alloc import zone_of
from core.mm.page_ops import DONE, NEW_PAGES
from core.mm.pgtable import PTE_A, PTE_PRESENT, find_pte_table
from core.mm.swap_state import free_swap
from core.mm.swapfile import drain_slot_caches, swp_slot

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Inode
    from core.sched.task import Task

HIGHEST_PRIORITY = 32767
DATA = "/data"
LEAST_AUTOMATIC = -1  # the one before the first that the kernel gives


# ---------------------------------------------------------------- areas


def plug_in(k: Kernel, devices: Iterable[SwapDevice]) -> None:
    """Devices that the machine has; nothing uses them yet."""
    for one in devices:
        add_device(k, one, None)


def add_device(k: Kernel, one: SwapDevice, path: str | None) -> dict[str, Any]:
    """A device, or a file, formatted: where its slots will be, and the name that it gets if it has none."""
    name = "zram" if one.kind == "zram" else "vd"
    number = sum(1 for device in k.swap_devices if (device["kind"] == "zram") == (name == "zram"))
    where = path or (f"/dev/zram{number}" if name == "zram" else f"/dev/vd{chr(ord('b') + number)}")
    kind = "file\t" if where in k.files else "partition"  # as /proc/swaps shows it
    device = {"path": where, "type": kind, "pages": (one.size >> 12) - 1, "base": rows(k.swap_devices), "priority": 0,
              "wanted": one.priority, "kind": one.kind, "shape": zram.shape(one.ratio / 100), "on": False}  # fmt: skip
    k.swap_devices.append(device)
    return device


def rows(devices: list[dict[str, Any]]) -> int:
    """How many rows of State.slots these devices need; row 0 is nobody's."""
    return 1 + sum(device["pages"] + 1 for device in devices)


def enable(k: Kernel, device: dict[str, Any]) -> None:
    """From now on pages go there."""
    automatic = [other["priority"] for other in k.swap_devices if other["on"] and other["priority"] < 0]
    device["priority"] = device["wanted"] if device["wanted"] is not None else min(automatic, default=LEAST_AUTOMATIC) - 1
    device["on"] = True
    i, pages = k.swap_devices.index(device), device["pages"]
    if not k.s.swaps["used"][i]:
        k.s.swaps[i] = 0
        for name, value in area_columns(device).items():
            k.s.swaps[name][i] = value
    k.s.swaps["prio"][i], k.s.swaps["on"][i] = device["priority"], 1
    count_swap(k, pages)


def area_columns(device: dict[str, Any]) -> dict[str, int]:
    """What the row of an empty area begins with."""
    latency, bandwidth = STORAGE_NS[device["kind"]]
    columns = {"base": device["base"], "pages": device["pages"], "next": 1, "kind": SWAP_KINDS.index(device["kind"]), "latency": latency,
               "bandwidth": bandwidth, "lowest": 1, "highest": device["pages"]}  # fmt: skip
    if device["kind"] == "zram":
        columns["object_size"], columns["per_zspage"], columns["zspage_frames"] = device["shape"]
    return columns


def disable(k: Kernel, device: dict[str, Any]) -> None:
    """No new page goes there; the automatic priorities below move up."""
    device["on"] = False
    k.s.swaps["on"][k.swap_devices.index(device)] = 0
    count_swap(k, -device["pages"])
    for i, other in enumerate(k.swap_devices):
        if device["priority"] < 0 and other["on"] and other["priority"] < device["priority"]:
            other["priority"] += 1
            k.s.swaps["prio"][i] = other["priority"]


def count_swap(k: Kernel, pages: int) -> None:
    """There is so much more swap, or less."""
    k.s.ctl[CTL_SWAP_FREE] += pages
    k.s.ctl[CTL_SWAP_TOTAL] += pages
    set_readahead(k)


def set_readahead(k: Kernel) -> None:
    """Read-ahead goes by address if that is switched on and no area in use rotates (swap_use_vma_readahead)."""
    rotates = any(device["on"] and device["kind"] in ROTATIONAL for device in k.swap_devices)
    k.s.ctl[CTL_VMA_RA] = int(bool(k.vma_ra_enabled) and not rotates)


def announce(k: Kernel, device: dict[str, Any]) -> None:
    """The line of the log."""
    kb = device["pages"] * 4
    ssd = "" if device["kind"] in ROTATIONAL else "SS"
    k.log(6, f"Adding {kb}k swap on {device['path']}.  Priority:{device['priority']} extents:1 across:{kb}k {ssd}".rstrip())


# ---------------------------------------------------------------- the calls


def find_device(k: Kernel, path: str) -> dict[str, Any] | None:
    """The device of that name; of a file, the rows that it had when it was as long as it is now."""
    named = [device for device in k.swap_devices if device["path"] == path]
    if path in k.files:
        named = [device for device in named if device["on"] or device["pages"] == (k.files[path].size >> 12) - 1]
    return named[0] if named else None


def new_area(k: Kernel, path: str, size: int | None, kind: str) -> SwapDevice:
    """What swapon is asked to use for the first time: a file of the disk, or a device to be plugged in. Errors: ENOENT, EINVAL."""
    if path in k.files:
        if k.files[path].hstate is not None or path.startswith("/dev/"):
            raise SysError(Errno.EINVAL, "a file of hugetlbfs is in memory: nothing can be swapped to it")
        size, kind = k.files[path].size, k.machine.storage.kind
    elif size is None:
        raise SysError(Errno.ENOENT, f"there is no device {path}; give a size to plug one in, or make a file of {DATA}")
    elif not path.startswith("/dev/"):
        raise SysError(Errno.EINVAL, f"a swap device is below /dev; a swap file of {DATA} is made first")
    if size < 2 * PAGE_SIZE:
        raise SysError(Errno.EINVAL, "a swap area has two pages at least")
    return SwapDevice(size, None, kind)


def do_swapon(k: Kernel, task: Task, path: str, size: int | None, priority: int | None, kind: str) -> None:
    """swapon(2). Errors: EPERM, ENOENT (no such file or device, and no size for a new one), EBUSY (in use), EINVAL (too small)."""
    if not util.capable(task):
        raise SysError(Errno.EPERM, "only root may do that")
    device = find_device(k, path)
    if device is None:
        area = new_area(k, path, size, kind)
        if len(k.swap_devices) == MAX_SWAPFILES:
            raise SysError(Errno.EPERM, f"there can be {MAX_SWAPFILES} swap areas")
        device = add_device(k, area, path)
        slots = arena((rows(k.swap_devices),), SLOT)
        slots[: len(k.s.slots)] = k.s.slots
        k.s = k.s._replace(slots=slots)
    elif device["on"]:
        raise SysError(Errno.EBUSY, f"{path} is in use")
    device["wanted"] = priority
    if path in k.files:
        k.files[path].swapfile = True
    enable(k, device)
    announce(k, device)


def do_swapoff(k: Kernel, task: Task, path: str) -> None:
    """swapoff(2). Errors: EPERM, EINVAL (not in use), ENOMEM; TaskKilled if memory runs out on the way."""
    if not util.capable(task):
        raise SysError(Errno.EPERM, "only root may do that")
    device = find_device(k, path)
    if device is None or not device["on"]:
        raise SysError(Errno.EINVAL, f"{path} is no swap area in use")
    util.vm_enough_memory(k, task, device["pages"])
    util.vm_unacct_memory(k, device["pages"])
    disable(k, device)
    task.oom_origin = True
    k.s.ctl[CTL_SWAP_CACHE] = -1
    drain_caches(k.s)
    try:
        try_to_unuse(k, task, device)
    except BaseException:
        enable(k, device)
        raise
    finally:
        task.oom_origin = False
        k.s.ctl[CTL_SWAP_CACHE] = 0
    if path in k.files:
        k.files[path].swapfile = False


def try_to_unuse(k: Kernel, task: Task, device: dict[str, Any]) -> None:
    """Everything that is in an area comes back to memory."""
    low, high = device["base"] + 1, device["base"] + device["pages"]
    for inode in [inode for inode in k.inodes.values() if inode.shmem and inode.root]:
        unuse_object(k, task, inode, low, high)
    for mm in list(k.mms.values()):
        for vma in list(mm.vmas):
            if vma.anon_vma is not None:
                memory.begin(k, task, vma, memory.READ, vma.start, 1, vma.end)
                shmem.bring_back(k, vma, lambda s: unuse_ptes(s, low, high))
        memory.sync_mm_rss(k, mm)
    drop_cached(k.s, low, high)


def unuse_object(k: Kernel, task: Task, inode: Inode, low: int, high: int) -> None:
    """The swapped pages of one shared-memory object (shmem_unuse_inode)."""
    filemap.begin(k, task, inode, 0, inode.nr_file_pages)
    shmem.bring_back(k, None, lambda s: shmem.unuse_tree(s, low, high))
    inode.nr_pages += int(k.s.vmf["count"][0][NEW_PAGES])


@njit
def unuse_ptes(s: State, low: int, high: int) -> None:
    """Map again what the entries of [vmf.first, vmf.n) have in the slots low .. high (unuse_pte_range). Stops with a reason for want of a frame."""
    v = s.vmf[0]
    v["reason"] = DONE
    pgd = s.mms[v["mm"]]["pgd"]
    at, end = v["first"] + v["done"], v["n"]
    while at < end:
        tid = find_pte_table(s, pgd, at)
        if tid == 0:
            at = (at | 511) + 1
            continue
        pte = s.pt[tid, at & 511]
        slot = swp_slot(s, pte) if pte and not pte & PTE_PRESENT else 0
        if low <= slot <= high:
            if do_swap_page(s, v, tid, pte, at, False, -1) <= 0:
                break
            s.pt[tid, at & 511] &= ~PTE_A
            pfn = s.slots[slot]["pfn"]
            if pfn:
                free_swap(s, zone_of(s, pfn), pfn)
        at += 1
    v["done"] = min(at, end) - v["first"]


@njit
def drain_caches(s: State) -> None:
    """No processor keeps a slot."""
    drain_slot_caches(s)


@njit
def drop_cached(s: State, low: int, high: int) -> None:
    """What only the swap cache holds goes."""
    for slot in range(low, high + 1):
        pfn = s.slots[slot]["pfn"]
        if pfn:
            free_swap(s, zone_of(s, pfn), pfn)
