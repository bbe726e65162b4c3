"""Red-black trees against a sorted list: after every insert and erase the tree is balanced, in order, and holds what it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.jit import njit
from core.mm.mm_types import KSM_NODE
from core.mm.rbtree import rb_check, rb_erase, rb_link, rb_replace


@njit
def insert(t, roots, node):  # type: ignore[no-untyped-def]
    """By `kpfn`, equals to the right."""
    parent, side, at = 0, 0, roots[0]
    while at:
        parent = at
        side = 0 if t[node]["kpfn"] < t[at]["kpfn"] else 1
        at = t[at]["child"][side]
    rb_link(t, roots, 0, node, parent, side)


@njit
def erase(t, roots, node):  # type: ignore[no-untyped-def]
    rb_erase(t, roots, 0, node)


@njit
def replace(t, roots, old, new):  # type: ignore[no-untyped-def]
    rb_replace(t, roots, 0, old, new)


class Tree:
    def __init__(self, size: int) -> None:
        table = np.zeros(size + 1, KSM_NODE)
        self.t = table.view(np.recarray) if insert.__name__ == "insert" and not hasattr(insert, "py_func") else table
        self.roots = np.zeros(1, np.int64)

    def insert(self, node: int, key: int) -> None:
        self.t["kpfn"][node] = key
        insert(self.t, self.roots, node)

    def keys(self) -> list[int]:
        """In order, by going down."""
        out: list[int] = []
        stack, node = [], int(self.roots[0])
        while stack or node:
            while node:
                stack.append(node)
                node = int(self.t["child"][node][0])
            node = stack.pop()
            out.append(int(self.t["kpfn"][node]))
            node = int(self.t["child"][node][1])
        return out

    def check(self) -> int:
        return int(rb_check(self.t, self.roots, 0, np.zeros(len(self.t), np.int64)))

    def depth(self, node: int | None = None) -> int:
        node = int(self.roots[0]) if node is None else node
        return 1 + max(self.depth(int(child)) for child in self.t["child"][node]) if node else 0


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), max_size=120))
def test_random_inserts_and_erases(steps: list[tuple[int, int]]) -> None:
    tree, held = Tree(40), {}
    for node, key in steps:
        if node in held:
            erase(tree.t, tree.roots, node)
            del held[node]
        else:
            tree.insert(node, key)
            held[node] = key
        assert tree.check() == len(held)
        assert tree.keys() == sorted(held.values())


@pytest.mark.parametrize("order", ["up", "down", "zigzag"])
def test_a_thousand_nodes_are_at_most_twenty_deep(order: str) -> None:
    nodes = {"up": range(1, 1001), "down": range(1000, 0, -1), "zigzag": [n for i in range(1, 501) for n in (i, 1001 - i)]}[order]
    tree = Tree(1000)
    for node in nodes:
        tree.insert(node, node)
    assert tree.check() == 1000
    assert tree.depth() <= 2 * np.log2(1001)
    for node in nodes:
        erase(tree.t, tree.roots, node)
    assert (tree.check(), tree.keys()) == (0, [])


def test_a_node_is_replaced_in_place() -> None:
    tree = Tree(8)
    for node in range(1, 8):
        tree.insert(node, node * 10)
    tree.t["kpfn"][8] = 40
    replace(tree.t, tree.roots, 4, 8)
    assert (tree.check(), tree.keys()) == (7, [10, 20, 30, 40, 50, 60, 70])


def test_a_broken_tree_is_found() -> None:
    tree = Tree(7)
    for node in range(1, 8):
        tree.insert(node, node)
    assert tree.check() == 7
    tree.t["red"][int(tree.roots[0])] = 1
    assert tree.check() < 0
