"""cgroup v2's memory controller (mm/memcontrol.c)."""

from __future__ import annotations

from core.mm.page_counter import drain_stock as drain_stock
from core.mm.page_counter import force_charge as force_charge
from core.mm.page_counter import refill_stock as refill_stock
from core.mm.page_counter import try_charge as try_charge
from core.mm.page_counter import uncharge as uncharge
