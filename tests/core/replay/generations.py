"""The multi-gen LRU on a trace of anonymous pages, written the slow way from mm/vmscan.c: lists of page numbers, a set for a Bloom filter.

A page is as Linux's flags have it: `gen` (None: in reclaim's hands), referenced, workingset, refs. Lists run from head to tail. Files do not
exist here, so of the two kinds only the oldest generation of files is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

TIERS, GENS, BATCH, TABLE = 4, 4, 64, 512


@dataclass
class Page:
    gen: int | None = None
    young: bool = True
    referenced: bool = False
    workingset: bool = False
    refs: int = 0

    def uses(self) -> int:
        return self.refs + self.workingset

    def forget(self) -> None:
        self.referenced, self.workingset, self.refs = False, False, 0


def tier_of(uses: int) -> int:
    return next(tier for tier in range(TIERS) if (1 << tier) >= uses + 1)


class Generations:
    def __init__(self, pages: int, frames: int) -> None:
        self.number, self.frames = pages, frames
        self.pages: dict[int, Page] = {}
        self.lists: list[list[int]] = [[] for _ in range(GENS)]
        self.max_seq, self.min_anon, self.min_file = 3, 0, 0
        self.shadows: dict[int, tuple[int, int]] = {}
        self.filters: list[set[int] | None] = [None, None]
        self.refaulted, self.evicted, self.protected = [0] * TIERS, [0] * TIERS, [0] * TIERS
        self.before_refaulted, self.before_total = [0] * TIERS, [0] * TIERS

    def run(self, trace: list[int]) -> list[int]:
        """The accesses that faulted, by their place in the trace."""
        faults = []
        for at, number in enumerate(trace):
            if number in self.pages:
                self.pages[number].young = True
                continue
            faults.append(at)
            if len(self.pages) == self.frames:
                self.reclaim()
            self.fault(number)
        return faults

    def fault(self, number: int) -> None:
        page = self.pages[number] = Page()
        seq, uses = self.shadows.get(number, (-1, 0))
        if seq == self.min_anon:
            self.refaulted[tier_of(uses)] += 1
            page.workingset, page.refs = True, 3
        self.add_youngest(number)

    def add_youngest(self, number: int) -> None:
        self.pages[number].gen = self.max_seq % GENS
        self.lists[self.max_seq % GENS].insert(0, number)

    def remove(self, number: int) -> None:
        next(one for one in self.lists if number in one).remove(number)

    # ------------------------------------------------------------ a round of reclaim

    def reclaim(self) -> None:
        self.goal, self.reclaimed, priority = min(32, max(1, self.frames >> 4)), 0, 12
        while len(self.pages) == self.frames:
            self.visit(priority)
            priority = max(priority - 1, 0)

    def visit(self, priority: int) -> None:
        self.walk, self.swapped, begin, visited = False, False, self.max_seq, 0
        while True:
            need, total = self.should_run_aging()
            share = total >> priority
            if need and priority < 12:
                self.age()
            elif need and self.min_anon + 2 > self.max_seq:
                share = 0
            scanned = self.evict() if share else 0
            visited += scanned
            if scanned == 0 or visited >= share or self.enough(begin, priority):
                return

    def enough(self, begin: int, priority: int) -> bool:
        if self.max_seq - begin > 1 or (self.reclaimed >= self.goal and self.swapped):
            return True
        if priority > 10:
            return False
        self.reclaimed += BATCH
        return True

    def should_run_aging(self) -> tuple[bool, int]:
        sizes = [0] * GENS
        for page in self.pages.values():
            assert page.gen is not None
            sizes[page.gen] += 1
        seqs = range(self.min_anon, self.max_seq + 1)
        total = sum(sizes[seq % GENS] for seq in seqs)
        if self.min_anon + 2 != self.max_seq:
            return self.min_anon + 2 > self.max_seq, total
        return sizes[self.max_seq % GENS] * 2 > total or sizes[self.min_anon % GENS] * 4 < total, total

    # ------------------------------------------------------------ aging

    def age(self) -> None:
        self.walk = True
        tables, fresh = self.filters[self.max_seq & 1], set[int]()
        for table in range(-(-self.number // TABLE)):
            numbers = range(table * TABLE, min((table + 1) * TABLE, self.number))
            if tables is None or table in tables:
                used = [number for number in numbers if number in self.pages and self.pages[number].young]
                for number in used:
                    self.promote(number)
                if len(used) * 8 >= len(numbers):
                    fresh.add(table)
        self.filters[self.max_seq + 1 & 1] = fresh
        if self.max_seq - self.min_anon == 3:
            for number in reversed(self.lists[self.min_anon % GENS].copy()):
                self.move(number, self.next_gen(number), tail=True)
            self.step_over()
            self.min_anon += 1
        if self.max_seq - self.min_file == 3:
            self.min_file += 1
        self.max_seq += 1

    def promote(self, number: int) -> None:
        page = self.pages[number]
        page.young = False
        page.forget()
        page.gen = self.max_seq % GENS

    def next_gen(self, number: int) -> int:
        page = self.pages[number]
        assert page.gen is not None
        if page.gen == self.min_anon % GENS:
            page.gen = (page.gen + 1) % GENS
            page.forget()
        return page.gen

    def move(self, number: int, gen: int, *, tail: bool) -> None:
        self.remove(number)
        self.lists[gen].insert(len(self.lists[gen]) if tail else 0, number)

    def step_over(self) -> None:
        """The oldest generation is done: half of what was counted is carried over."""
        for tier in range(TIERS):
            self.before_refaulted[tier] = (self.before_refaulted[tier] + self.refaulted[tier]) // 2
            self.before_total[tier] = (self.before_total[tier] + self.evicted[tier] + self.protected[tier]) // 2
        self.refaulted, self.evicted, self.protected = [0] * TIERS, [0] * TIERS, [0] * TIERS

    # ------------------------------------------------------------ eviction

    def last_tier(self) -> int:
        back = [a + b for a, b in zip(self.before_refaulted, self.refaulted, strict=True)]
        total = [sum(counts) for counts in zip(self.before_total, self.evicted, self.protected, strict=True)]
        tier = 1
        while tier < TIERS and (back[tier] < 64 or back[tier] * (total[0] + 64) <= (back[0] + 1) * total[tier] * 2):
            tier += 1
        return tier - 1

    def evict(self) -> int:
        taken, scanned = self.isolate()
        oldest = self.min_anon
        while oldest + 2 <= self.max_seq and not self.lists[oldest % GENS]:
            oldest += 1
        file = self.min_file
        while file + 2 <= self.max_seq:
            file += 1
        oldest = min(oldest, file)
        if oldest != self.min_anon:
            self.step_over()
        scanned += oldest != self.min_anon or max(oldest, self.min_file) != self.min_file
        self.min_anon, self.min_file = oldest, max(oldest, self.min_file)
        if self.max_seq - self.min_anon == 1:
            scanned = 0
        self.swapped |= bool(taken)
        for number in taken:
            self.judge(number)
        return scanned

    def isolate(self) -> tuple[list[int], int]:
        if self.max_seq - self.min_anon == 1:
            return [], 0
        taken: list[int] = []
        scanned, limit, last = 0, BATCH * 64, self.last_tier()
        for number in reversed(self.lists[self.min_anon % GENS].copy()):
            if scanned == limit or len(taken) == BATCH:
                break
            page = self.pages[number]
            scanned += 1
            if page.gen != self.min_anon % GENS:
                assert page.gen is not None
                self.move(number, page.gen, tail=False)
            elif tier_of(page.uses()) > last or page.uses() == 4:
                self.protected[tier_of(page.uses())] += 1
                self.move(number, self.next_gen(number), tail=True)
            else:
                if not page.referenced:
                    page.forget()
                page.referenced, page.gen = False, None
                self.remove(number)
                taken.append(number)
        return taken, scanned if taken or scanned == limit else 0

    def judge(self, number: int) -> None:
        page = self.pages[number]
        if not page.referenced and page.young:
            self.look_around(number)
        elif not page.referenced:
            self.evicted[tier_of(page.uses())] += 1
            self.shadows[number] = (self.min_anon, page.uses())
            self.reclaimed += 1
            del self.pages[number]
            return
        page.forget()
        self.add_youngest(number)

    def look_around(self, number: int) -> None:
        start, end = number // TABLE * TABLE, min((number // TABLE + 1) * TABLE, self.number)
        if end - start > BATCH:
            start = min(max(number - BATCH // 2, start), end - BATCH)
            end = start + BATCH
        used = [near for near in range(start, end) if near in self.pages and self.pages[near].young]
        older = [near for near in used if self.pages[near].gen not in (None, self.max_seq % GENS)]
        for near in used:
            self.pages[near].young = False
            self.pages[near].referenced |= self.pages[near].gen is None
        filter = self.filters[self.max_seq & 1]
        if len(used) * 8 >= end - start and filter is not None:
            filter.add(number // TABLE)
        for near in older:
            if not self.walk and len(older) < 15:
                self.pages[near].gen = self.max_seq % GENS
                self.move(near, self.max_seq % GENS, tail=False)
            else:
                self.promote(near)
