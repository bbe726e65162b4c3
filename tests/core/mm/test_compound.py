"""Compound pages: the head speaks for the whole, each frame counts its own small entries."""

from __future__ import annotations

import numpy as np
import pytest

from core import Kernel, Machine
from core.abi.page_flags import PG_ANON, PG_HEAD, PG_TAIL
from core.jit import njit
from core.mm import compound
from core.mm.mm_types import MIGRATE_MOVABLE
from core.mm.page_alloc import alloc_block, free_block


@njit
def facts(s, pfn, order, out):
    compound.prep_compound_page(s, pfn, order, PG_ANON)
    compound.add_compound_mapcount(s, pfn, 2)
    s.mem[pfn + 3]["mapcount"] = 5
    out[0] = compound.compound_head(s, pfn + 3)
    out[1] = compound.compound_nr(s, pfn)
    out[2] = compound.page_mapcount(s, pfn + 3)
    out[3] = compound.page_mapcount(s, pfn)
    out[4] = compound.total_mapcount(s, pfn)


@njit
def forget(s, pfn, order):
    compound.clear_compound_page(s, pfn, order)


@pytest.mark.parametrize("order", [2, 9])
def test_head_and_tails(order: int) -> None:
    k = Kernel.boot(Machine.from_dict({"memory": "64M"}))
    pfn = int(alloc_block(k.s, 0, order, 0, 2, 0, MIGRATE_MOVABLE))
    out = np.zeros(5, np.int64)
    facts(k.s, pfn, order, out)
    assert out.tolist() == [pfn, 1 << order, 7, 2, 7]
    flags = k.s.mem["flags"][pfn : pfn + (1 << order)]
    assert flags[0] == PG_HEAD | PG_ANON and (flags[1:] == PG_TAIL | PG_ANON).all()
    forget(k.s, pfn, order)
    assert not any(k.s.mem[name][pfn : pfn + (1 << order)].any() for name in k.s.mem.dtype.names)
    free_block(k.s, pfn, order)
    k.verify()
