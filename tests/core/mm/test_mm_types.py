"""The scalars of `State.ctl`: every name has a place of its own, wherever it is defined."""

from __future__ import annotations

import importlib
import pkgutil

import core
from core.mm.mm_types import CTL_BUDDY, MAX_ORDER, NR_CTL

NO_SCALARS = {"CTL_BUDDY"}  # where a row of MAX_ORDER places begins


def test_no_two_names_share_a_place() -> None:
    places: dict[int, set[str]] = {place: {"CTL_BUDDY"} for place in range(CTL_BUDDY, CTL_BUDDY + MAX_ORDER)}
    for found in pkgutil.walk_packages(core.__path__, "core."):
        for name, place in vars(importlib.import_module(found.name)).items():
            if name.startswith("CTL_") and name not in NO_SCALARS:
                places.setdefault(place, set()).add(name)
    assert max(places) < NR_CTL
    assert [names for names in places.values() if len(names) > 1] == []
