"""What khugepaged's look at 2 MiB can come to (mm/khugepaged.c: enum scan_result), and what it counts on the way."""

from __future__ import annotations

from core.abi.errno import Errno

# what a look came to (enum scan_result), each with a sentence
(SUCCEED, PMD_NULL, PMD_NONE, PMD_MAPPED, EXCEED_NONE, EXCEED_SWAP, EXCEED_SHARED, NON_PRESENT, PAGE_RO, LACK_REFERENCED, PAGE_COUNT, PAGE_LRU,
 PAGE_ANON, ALLOC_FAIL, CHARGE_FAIL, FAIL, PTE_MAPPED, TRUNCATED) = range(18)  # fmt: skip
RESULTS = (
    ("succeed", "the 2 MiB can be, or were, collapsed"),
    ("pmd_null", "there is no page table for this part of the address space: nothing was touched here"),
    ("pmd_none", "nothing was touched in these 2 MiB"),
    ("pmd_mapped", "a huge page is mapped already"),
    ("exceed_none_pte", "more empty entries than max_ptes_none"),
    ("exceed_swap_pte", "more swapped entries than max_ptes_swap"),
    ("exceed_shared_pte", "more entries of shared pages than max_ptes_shared"),
    ("pte_non_present", "a page is in swap and did not come back"),
    ("page_ro", "no entry is writable"),
    ("lack_referenced_page", "no page was used lately (or, with some in swap, fewer than 256)"),
    ("page_count", "somebody else holds a page"),
    ("page_lru", "a page is on no LRU list"),
    ("page_anon", "a page of a file, or a mapping that has copied pages of its own"),
    ("alloc_huge_page_failed", "no free block of 2 MiB"),
    ("cgroup_charge_failed", "512 pages more would pass a memory.max"),
    ("failed", "it failed"),
    ("pte_mapped_hugepage", "the object has a huge page there already"),
    ("truncated", "the object has nothing there"),
)  # fmt: skip
ERRNO = {ALLOC_FAIL: Errno.ENOMEM, CHARGE_FAIL: Errno.EBUSY, PAGE_COUNT: Errno.EAGAIN, PAGE_LRU: Errno.EAGAIN}
GO_ON = frozenset({PMD_NULL, NON_PRESENT, PAGE_RO, LACK_REFERENCED, PAGE_COUNT, PAGE_LRU})  # after which MADV_COLLAPSE tries the next 2 MiB

# columns of what a look counts; from NODES on, pages by node
REFERENCED, UNMAPPED, NONE, SHARED, WRITABLE, NODES = range(6)
# columns of what it must heed
BY_KHUGEPAGED, MAX_NONE, MAX_SWAP, MAX_SHARED = range(4)
