"""The 4-level page table of x86-64: entries in the processor's own bits, tables that are frames.

      63   62..52   51..12    11..9    8    7    6   5    4   3    2    1   0
     +----+--------+--------+-------+----+----+---+---+-----+---+----+----+---+
     | NX |        |  PFN   | soft  | G  | PS | D | A | PCD |PWT| US | RW | P |
     +----+--------+--------+-------+----+----+---+---+-----+---+----+----+---+
       bit 9 special (the zero page: no struct page to count), bit 11 soft-dirty, bit 8 with P clear: PROT_NONE

A virtual address of 48 bits is four indices of 9 bits and an offset of 12: `pgd pud pmd pte offset`. Each
index selects one of 512 entries; the entry holds the frame of the next table. `0x7ffff3ff9000` is
pgd 255, pud 511, pmd 415, pte 505. One page table maps 2 MiB, a PMD table 1 GiB, a PUD table 512 GiB: a
process that touches one page owns one table of each level and its pgd.

Here a table is a row of `State.pt` and its frame's `private` names the row; an upper entry holds the
*frame* (as the processor needs it), so a walk goes frame → row → entry. Entries are int64: bit 63 (NX) makes
a negative number, the bits are the same.

A swapped page's entry (P clear): type in bits 59-63 and the *inverted* offset in bits 9-58 as in 6.1.

Source: arch/x86/include/asm/pgtable_types.h, pgtable_64.h; mm/memory.c:__pte_alloc, free_pgd_range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.jit import inline, njit
from core.mm.mm_types import CTL_PT_FREE, CTL_PT_NEXT, CTL_XA_FREE, CTL_XA_NEXT, State

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.mm_types import Mm

PTE_P = 1 << 0
PTE_RW = 1 << 1
PTE_US = 1 << 2
PTE_PWT = 1 << 3
PTE_PCD = 1 << 4
PTE_A = 1 << 5
PTE_D = 1 << 6
PTE_PS = 1 << 7
PTE_PROTNONE = 1 << 8  # only where P is clear
PTE_SPECIAL = 1 << 9
PTE_SOFT_DIRTY = 1 << 11
PTE_NX = -(1 << 63)
PFN_MASK = ((1 << 52) - 1) & ~0xFFF
PTE_PRESENT = PTE_P | PTE_PROTNONE
TABLE_ENTRY = PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D  # _PAGE_TABLE

# A migration or swap entry: neither P nor PROT_NONE, not zero.
SWP_SOFT_DIRTY = 1 << 1
SWP_TYPE_SHIFT = 59
SWP_OFFSET_SHIFT = 9

LEVELS = ("pgd", "pud", "pmd", "pte")


@inline
def pte_pfn(pte: int) -> int:
    """The frame an entry points to."""
    return (pte & PFN_MASK) >> 12


@inline
def table_of(s: State, entry: int) -> int:
    """The table row that an upper entry points to."""
    return s.mem[(entry & PFN_MASK) >> 12].private


@inline
def find_table(s: State, pgd: int, vpn: int, level: int) -> int:
    """The row of the table of `level` (1 PUD, 2 PMD, 3 PTE) that covers this page, or 0 if not there."""
    tid = pgd
    shift = 27
    for _ in range(level):
        entry = s.pt[tid, (vpn >> shift) & 511]
        if entry == 0 or entry & PTE_PS:
            return 0
        tid = s.mem[(entry & PFN_MASK) >> 12].private
        shift -= 9
    return tid


@inline
def find_pte_table(s: State, pgd: int, vpn: int) -> int:
    """The row of the PTE table that covers this page, or 0 if not there."""
    return find_table(s, pgd, vpn, 3)


@inline
def pmd_frame(s: State, pgd: int, vpn: int) -> int:
    """The frame of the PMD table (its row: `private`) that covers this page, or 0 if not there."""
    entry = s.pt[pgd, (vpn >> 27) & 511]
    if entry == 0:
        return 0
    entry = s.pt[table_of(s, entry), (vpn >> 18) & 511]
    if entry == 0 or entry & PTE_PS:
        return 0
    return (entry & PFN_MASK) >> 12


@inline
def huge_entry(s: State, pgd: int, vpn: int) -> int:
    """The PMD entry that maps the 2 MiB around this page at once; 0 where there is none."""
    tid = find_table(s, pgd, vpn, 2)
    if tid == 0:
        return 0
    entry = s.pt[tid, (vpn >> 9) & 511]
    return entry if entry & PTE_PS and entry & PTE_PRESENT else 0


@inline
def deposit(s: State, pmd: int, table: int) -> None:
    """Put an empty page table (a frame) by for a huge entry of the PMD table in frame `pmd` (pgtable_trans_huge_deposit).

    It is counted among the process's tables, and is there when the huge entry must become 512 small ones. Last in, first out.
    """
    s.mem[table]["next"] = s.mem[pmd]["index"]
    s.mem[pmd]["index"] = table


@inline
def withdraw(s: State, pmd: int) -> int:
    """Take a deposited page table back: its frame (pgtable_trans_huge_withdraw)."""
    table = s.mem[pmd]["index"]
    s.mem[pmd]["index"] = s.mem[table]["next"]
    s.mem[table]["next"] = 0
    return table


@inline
def take_table_row(s: State) -> int:
    """A free, zeroed row of the table pool."""
    tid = s.ctl[CTL_PT_FREE]
    if tid:
        s.ctl[CTL_PT_FREE] = s.pt[tid, 0]
        s.pt[tid, 0] = 0
        return tid
    tid = s.ctl[CTL_PT_NEXT]
    s.ctl[CTL_PT_NEXT] = tid + 1
    s.pt[tid, 0] = 0  # a fresh row read first would cost the host two faults: its own zero page, then a page
    return tid


@inline
def give_table_row(s: State, tid: int) -> None:
    """Return an emptied row to the pool."""
    s.pt[tid, 0] = s.ctl[CTL_PT_FREE]
    s.ctl[CTL_PT_FREE] = tid


@inline
def take_node(s: State) -> int:
    """A free, zeroed radix node of the page-cache pool."""
    node = s.ctl[CTL_XA_FREE]
    if node:
        s.ctl[CTL_XA_FREE] = s.xa[node, 0]
        s.xa[node, 0] = 0
        return node
    node = s.ctl[CTL_XA_NEXT]
    s.ctl[CTL_XA_NEXT] = node + 1
    s.xa[node, 0] = 0  # as for a page table
    return node


@inline
def give_node(s: State, node: int) -> None:
    """Return an emptied radix node to the pool."""
    s.xa[node, 0] = s.ctl[CTL_XA_FREE]
    s.ctl[CTL_XA_FREE] = node


@njit
def lookup(s: State, pgd: int, vpn: int) -> int:
    """The PTE of one page (0 where nothing is mapped or a table is missing)."""
    tid = find_pte_table(s, pgd, vpn)
    if tid == 0:
        return 0
    return s.pt[tid, vpn & 511]


@njit
def lookup_pmd(s: State, pgd: int, vpn: int) -> int:
    """The PMD entry around one page: of a table, or huge; 0 where there is none."""
    tid = find_table(s, pgd, vpn, 2)
    return s.pt[tid, (vpn >> 9) & 511] if tid else 0


def entry(k: Kernel, mm: Mm, vpn: int) -> int:
    """The PTE of one page of an address space, as an int64."""
    return int(lookup(k.s, int(k.s.mms["pgd"][mm.id]), vpn))


def pmd_entry(k: Kernel, mm: Mm, vpn: int) -> int:
    """The entry of the 2 MiB around a page: of a page table, or huge; 0: neither."""
    return int(lookup_pmd(k.s, int(k.s.mms["pgd"][mm.id]), vpn))
