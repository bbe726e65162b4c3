"""/sys/kernel/mm/lru_gen and /sys/kernel/debug/lru_gen: the multi-gen LRU's switches, and its generations to look at and to command.

    memcg     2 /t
     node     0
              0        736          0           0
              1        736          0        4093      generation, age in ms, anonymous pages, file pages
              2        736          0           0
              3        736       8192           0

Source: lru_gen_seq_show, lru_gen_seq_show_full, lru_gen_seq_write, store_enabled; Documentation/admin-guide/mm/multigen_lru.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from core.abi.errno import SysError
from core.fs.node import FsError, Row, parse_int
from core.mm import lru_gen, memcontrol, vmscan
from core.mm.mm_types import MAX_NR_GENS, MAX_NR_TIERS, ZONES_PER_NODE

if TYPE_CHECKING:
    from core.kernel import Kernel
    from core.mm.memcontrol import Cgroup

LRU_GEN = "/sys/kernel/mm/lru_gen/"
DEBUG = "/sys/kernel/debug/"
UINT_MAX = (1 << 32) - 1
CORE, MM_WALK, NONLEAF_YOUNG = 1, 2, 4
COMMAND = re.compile(r"(\S)\s*(\d+)\s+(\d+)\s+(\d+)(?:\s+(\d+))?(?:\s+(\d+))?\s*")


def read_enabled(k: Kernel) -> str:
    """0x0007 when all is on."""
    caps = CORE * lru_gen.is_on(k) | MM_WALK * k.lru_gen["mm_walk"] | NONLEAF_YOUNG * k.lru_gen["nonleaf_young"]
    return f"0x{caps:04x}\n"


def write_enabled(k: Kernel, text: str) -> None:
    """A mask of the three, or y or n for all."""
    word = text.strip()
    caps = {"y": -1, "n": 0}.get(word[:1].lower())
    if caps is None:
        caps = parse_int(word, 0, UINT_MAX, "lru_gen/enabled")
    k.lru_gen["mm_walk"], k.lru_gen["nonleaf_young"] = int(bool(caps & MM_WALK)), int(bool(caps & NONLEAF_YOUNG))
    lru_gen.change_state(k, bool(caps & CORE))


def read_min_ttl(k: Kernel) -> str:
    """Milliseconds."""
    return f"{k.lru_gen['min_ttl_ms']}\n"


def write_min_ttl(k: Kernel, text: str) -> None:
    """Kept in jiffies, so rounded up to 4 ms."""
    k.lru_gen["min_ttl_ms"] = -(-parse_int(text, 0, UINT_MAX, "min_ttl_ms") // 4) * 4


def lruvecs(k: Kernel) -> Iterator[tuple[Cgroup, int]]:
    """Every cgroup's lists on every node, in the order of the file."""
    for cg in memcontrol.reclaim_order(k, k.root_cgroup):
        for node in range(k.nr_nodes):
            yield cg, node


def show(full: bool, k: Kernel) -> str:
    """The generations of each cgroup on each node; `full` with the tiers and what the walks saw."""
    out = []
    now = k.clock.now // lru_gen.JIFFY
    for cg, node in lruvecs(k):
        vec = k.s.lrugens[cg.id * k.nr_nodes + node]
        newest, oldest = int(vec["max_seq"]), [int(seq) for seq in vec["min_seq"]]
        if node == 0:
            out.append(f"memcg {cg.id + 1:5} {cg.path}\n")
        out.append(f" node {node:5}\n")
        for seq in range(max(newest - MAX_NR_GENS + 1, 0) if full else oldest[0], newest + 1):
            sizes = [gen_size(vec, seq, kind) for kind in range(2)]
            marks = ["x" if full and seq < oldest[kind] else " " for kind in range(2)]
            age = (now - int(vec["birth"][seq % MAX_NR_GENS])) * 4
            out.append(f" {seq:10} {age:10} {sizes[0]:10}{marks[0]} {sizes[1]:10}{marks[1]}\n")
            if full:
                out.append(tiers(vec, seq))
    return "".join(out)


def gen_size(vec: Any, seq: int, kind: int) -> int:
    """Pages of a kind in a generation, over all zones."""
    row = (seq % MAX_NR_GENS * 2 + kind) * ZONES_PER_NODE
    return int(vec["nr"][row : row + ZONES_PER_NODE].sum())


def tiers(vec: Any, seq: int) -> str:
    """Refaulted, evicted and protected by tier (r, e, p) of an oldest generation, the averages (R, T) in the youngest; then the walks."""
    newest = seq == int(vec["max_seq"])
    out = []
    for tier in range(MAX_NR_TIERS):
        line = f"            {tier:10}"
        for kind in range(2):
            at, marks, numbers = kind * MAX_NR_TIERS + tier, "   ", [0, 0, 0]
            if newest:
                marks, numbers = "RT ", [int(vec["avg_refaulted"][at]), int(vec["avg_total"][at]), 0]
            elif seq == int(vec["min_seq"][kind]):
                marks, numbers = "rep", [int(vec[name][at]) for name in ("refaulted", "evicted", "protected")]
            line += "".join(f" {number:10}{mark}" for number, mark in zip(numbers, marks, strict=True))
        out.append(line + "\n")
    seen = [int(n) for n in vec["mm_stats"]] if newest else [0] * 6
    out.append("                      " + "".join(f" {n:10}{mark}" for n, mark in zip(seen, "LOYNFA" if newest else " " * 6, strict=True)) + "\n")
    return "".join(out)


def command(k: Kernel, text: str) -> None:
    """`+ memcg node seq [can_swap [force_scan]]` ages, `- memcg node seq [swappiness [nr_to_reclaim]]` evicts; several by , ; or newline."""
    vmscan.begin(k, 0, 0)
    for part in re.split(r"[,;\n]", text):
        if not part.strip():
            continue
        parsed = COMMAND.fullmatch(part.strip())
        if parsed is None:
            raise FsError("EINVAL", f"{part.strip()!r} is none of: + memcg node seq [can_swap [force]], - memcg node seq [swappiness [nr]]")
        try:
            run(k, parsed[1], [int(word) for word in parsed.groups()[1:] if word is not None])
        except SysError as refused:
            raise FsError(refused.errno.name, refused.why or "refused") from None


def run(k: Kernel, verb: str, words: list[int]) -> None:
    """One command (run_cmd)."""
    memcg, node, seq, *rest = words
    cg = k.cgroups.get(memcg - 1)
    if cg is None or not 0 <= node < k.nr_nodes or (rest and rest[0] > 200) or verb not in "+-":
        raise FsError("EINVAL", "no such cgroup, node, swappiness or command")
    k.s.sc[0]["node"] = node
    swappiness = rest[0] if rest else int(lru_gen.swappiness_of(k.s, cg.id))
    if verb == "+":
        lru_gen.run_aging(k, cg.id, node, seq, int(swappiness > 0), bool(rest[1]) if len(rest) > 1 else True)
    else:
        k.s.sc[0]["nr_reclaimed"], k.s.sc[0]["swappiness"] = 0, swappiness
        lru_gen.run_eviction(k, cg.id, node, seq, swappiness, rest[1] if len(rest) > 1 else 1 << 62)


def rows() -> tuple[Row, ...]:
    """The files as rows of the tree."""
    nonleaf = "0x0004 is kept and changes nothing: upper entries' A bits are not used"
    return (
        Row(LRU_GEN + "enabled", 0o644, "multi-gen LRU: 0x0001 on, 0x0002 walks page tables, 0x0004 upper entries; y or n for all",
            read_enabled, write_enabled, "partial", nonleaf),
        Row(LRU_GEN + "min_ttl_ms", 0o644, "kill rather than evict what is younger than this, ms; 0: never", read_min_ttl, write_min_ttl),
        Row(DEBUG + "lru_gen", 0o644, "generations by cgroup and node: number, age in ms, anonymous and file pages; takes commands",
            partial(show, False), command),
        Row(DEBUG + "lru_gen_full", 0o444, "the same with tiers and what page-table walks saw", partial(show, True)),
    )
