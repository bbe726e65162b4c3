"""mincore: what counts as resident."""

from __future__ import annotations

import pytest

from tests.core.mm.space import ANON, PAGE, SHARED, M, Space


@pytest.mark.parametrize(("access", "resident"), [(None, 0), ("read", 256), ("write", 256)])
def test_anonymous_memory_is_resident_once_touched(space: Space, access: str | None, resident: int) -> None:
    h = space.mmap(8 * M)
    if access:
        space.touch(h, M, access)  # a read maps the zero page: resident
    assert space.ok("mincore", address=h, length=8 * M) == {"resident": resident, "pages": 2048}


def test_shared_memory_is_resident_when_anybody_touched_it(space: Space) -> None:
    h = space.mmap(M, flags=SHARED)
    child = space.ok("fork")["pid"]
    space.ok("touch", child, address=h, length=M // 2, access="write")
    assert space.ok("mincore", address=h, length=M)["resident"] == 128


def test_a_file_is_resident_as_far_as_it_is_cached(space: Space) -> None:
    space.k.call("create_file", path="/data/f", size=8 * M)
    h = space.mmap(8 * M, "r", ["shared"], file="/data/f")
    assert space.ok("mincore", address=h, length=8 * M)["resident"] == 0
    space.ok("read", path="/data/f", offset=0, length=M)
    resident = space.ok("mincore", address=h, length=8 * M)["resident"]
    assert 256 <= resident <= 256 + 64  # and what was read ahead
    assert space.ok("mincore", address=h + 4 * M, length=M)["resident"] == 0


def test_a_huge_sparse_object_costs_what_is_in_it(space: Space) -> None:
    h = space.mmap(1 << 40, flags=[*SHARED, "noreserve"])
    for at in (0, 3 << 30, (1 << 40) - PAGE):
        space.touch(h + at, PAGE)
    assert space.ok("mincore", address=h, length=1 << 40) == {"resident": 3, "pages": 1 << 28}


def test_of_a_file_that_cannot_be_written_every_page_is_said_to_be_resident(space: Space) -> None:
    program = next(vma for vma in space.mm.vmas if vma.file is not None)
    assert not program.file.writable  # type: ignore[union-attr]
    answer = space.ok("mincore", address=program.start * PAGE, length=program.pages * PAGE)
    assert answer["resident"] == program.pages


@pytest.mark.parametrize(("offset", "length", "errno"), [
    (1, PAGE, "EINVAL"), (0, 9 * PAGE, "ENOMEM"), (-PAGE, PAGE, "ENOMEM"), (0, 1 << 63, "ENOMEM"), (0, 0, None), (0, 8 * PAGE, None),
])  # fmt: skip
def test_errno(space: Space, offset: int, length: int, errno: str | None) -> None:
    h = space.mmap(8 * PAGE, flags=[*ANON, "fixed"], address=0x10000000)
    assert space.errno("mincore", address=h + offset, length=length) == errno
