"""Red-black trees in columns (lib/rbtree.c): a binary search tree that stays balanced.

Every node is red or black. The root is black, a red node has black children, and every way down passes equally many black nodes: so the
longest way is at most twice the shortest, and a tree of n nodes is at most 2 log2(n + 1) deep: 34 for 100,000.

    insert   the new node is red; two reds in a row are recoloured on the way up, and at most two rotations end it
    erase    a node with two children changes places with the next larger one; a missing black is made good on the way up

      rotate(x, 0):     x               y
                       / \\    -->      / \\
                      a   y          x   c
                         / \\        / \\
                        b   c      a   b

A tree lives in a table `t` with the columns `child` (two), `parent` and `red`; row 0 is no node; its root is `roots[r]`. Who searches
compares for himself, links the new node where his search ended, and calls `rb_insert`.
"""

from __future__ import annotations

from core.jit import inline, njit, step


@inline
def _replace(t, roots, r: int, old: int, new: int, parent: int) -> None:
    """What pointed down to `old` points to `new`."""
    if parent == 0:
        roots[r] = new
    elif t[parent]["child"][0] == old:
        t[parent]["child"][0] = new
    else:
        t[parent]["child"][1] = new


@step
def _rotate(t, roots, r: int, x: int, side: int) -> None:
    """`x` goes down to `side`, its child of the other side takes its place."""
    y = t[x]["child"][1 - side]
    inner = t[y]["child"][side]
    t[x]["child"][1 - side] = inner
    if inner:
        t[inner]["parent"] = x
    parent = t[x]["parent"]
    t[y]["parent"] = parent
    _replace(t, roots, r, x, y, parent)
    t[y]["child"][side] = x
    t[x]["parent"] = y


@step
def rb_link(t, roots, r: int, node: int, parent: int, side: int) -> None:
    """Hang a new node below `parent` (0: the tree is empty) and balance the tree (rb_link_node, rb_insert_color)."""
    t[node]["parent"] = parent
    t[node]["child"][0] = 0
    t[node]["child"][1] = 0
    t[node]["red"] = 1
    if parent:
        t[parent]["child"][side] = node
    else:
        roots[r] = node
    while True:
        parent = t[node]["parent"]
        if parent == 0:
            t[node]["red"] = 0
            return
        if not t[parent]["red"]:
            return
        above = t[parent]["parent"]
        side = 0 if t[above]["child"][0] == parent else 1
        uncle = t[above]["child"][1 - side]
        if uncle and t[uncle]["red"]:
            t[uncle]["red"] = 0
            t[parent]["red"] = 0
            t[above]["red"] = 1
            node = above
            continue
        if t[parent]["child"][1 - side] == node:
            _rotate(t, roots, r, parent, side)
            parent = node
        t[parent]["red"] = 0
        t[above]["red"] = 1
        _rotate(t, roots, r, above, 1 - side)
        return


@step
def rb_replace(t, roots, r: int, old: int, new: int) -> None:
    """`new` takes the place of `old`, colour and all (rb_replace_node)."""
    parent = t[old]["parent"]
    t[new]["parent"] = parent
    t[new]["red"] = t[old]["red"]
    for side in range(2):
        child = t[old]["child"][side]
        t[new]["child"][side] = child
        if child:
            t[child]["parent"] = new
    _replace(t, roots, r, old, new, parent)


@step
def rb_erase(t, roots, r: int, node: int) -> None:
    """Take a node out of its tree."""
    left, right = t[node]["child"][0], t[node]["child"][1]
    parent = t[node]["parent"]
    if left == 0 or right == 0:
        child = left + right
        _replace(t, roots, r, node, child, parent)
        if child:
            t[child]["parent"] = parent
            t[child]["red"] = t[node]["red"]
        elif not t[node]["red"] and parent:
            _mend(t, roots, r, parent)
        return
    heir = right
    while t[heir]["child"][0]:
        heir = t[heir]["child"][0]
    child = t[heir]["child"][1]
    above = heir
    if heir != right:
        above = t[heir]["parent"]
        t[above]["child"][0] = child
        t[heir]["child"][1] = right
        t[right]["parent"] = heir
    t[heir]["child"][0] = left
    t[left]["parent"] = heir
    _replace(t, roots, r, node, heir, parent)
    t[heir]["parent"] = parent
    was_red = t[heir]["red"]
    t[heir]["red"] = t[node]["red"]
    if child:
        t[child]["parent"] = above
        t[child]["red"] = 0
    elif not was_red:
        _mend(t, roots, r, above)


@step
def _mend(t, roots, r: int, parent: int) -> None:
    """A black node below `parent` is gone, and the ways through there are one short (____rb_erase_color)."""
    node = 0
    while True:
        side = 0 if t[parent]["child"][0] == node else 1
        sibling = t[parent]["child"][1 - side]
        if t[sibling]["red"]:
            t[sibling]["red"] = 0
            t[parent]["red"] = 1
            _rotate(t, roots, r, parent, side)
            sibling = t[parent]["child"][1 - side]
        near, far = t[sibling]["child"][side], t[sibling]["child"][1 - side]
        if not (far and t[far]["red"]):
            if not (near and t[near]["red"]):
                t[sibling]["red"] = 1
                node = parent
                parent = t[node]["parent"]
                if t[node]["red"] or parent == 0:
                    t[node]["red"] = 0
                    return
                continue
            t[near]["red"] = 0
            t[sibling]["red"] = 1
            _rotate(t, roots, r, sibling, 1 - side)
            far = sibling
            sibling = near
        t[sibling]["red"] = t[parent]["red"]
        t[parent]["red"] = 0
        t[far]["red"] = 0
        _rotate(t, roots, r, parent, side)
        return


@njit
def rb_check(t, roots, r: int, seen) -> int:
    """How many nodes a tree has, marking them in `seen`; -1 - node at the first one that breaks a rule of red-black trees."""
    root = roots[r]
    if root == 0:
        return 0
    if t[root]["parent"] or t[root]["red"]:
        return -1 - root
    count, black, depth = 0, -1, 0  # depth: black nodes from the root to where we are
    node, came = root, 0
    while node:
        left, right = t[node]["child"][0], t[node]["child"][1]
        if came == t[node]["parent"]:  # from above
            count += 1
            seen[node] += 1
            depth += 1 - t[node]["red"]
            if seen[node] > 1 or (t[node]["red"] and came and t[came]["red"]):
                return -1 - node
            if left == 0 or right == 0:
                if black < 0:
                    black = depth
                if black != depth:
                    return -1 - node
            if (left and t[left]["parent"] != node) or (right and t[right]["parent"] != node):
                return -1 - node
        if left and came == t[node]["parent"]:
            came, node = node, left
        elif right and came != right:
            came, node = node, right
        else:
            depth -= 1 - t[node]["red"]
            came, node = node, t[node]["parent"]
    return count
