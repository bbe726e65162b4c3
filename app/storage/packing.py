"""Operations that are committed together stand in one row of the journal.

A row costs the database as much as its transaction: a place in the tree, a checksum, nine values to bind. So what one session adds in one commit (a
batch, or what came while the disk was busy) is one row, of format 2. It stands at the number of its last operation, whose figures its columns have;
its body is lines:

    {"last_event":[7,7,9],"clock_ns":[3000110,3000290,3000550]}      of all operations but the last
    {"op":"touch","pid":101,"address":"0x7ffff7a00000"}              then the operations, one a line, each as a row of its own would have it
    …

So the newest row of a timeline says where it ends, as ever, and an operation is found in the first row at or after its number. What was not known yet
when it was stored (a last event of -1) is completed in the columns, so such an operation is the last of its row.

The primary key does not see that two rows overlap. So every append looks (`Dialect.append`): a row whose first operation is not beyond all that are
there is refused, as a number that is there already always was.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from app.storage.store import Entry, mark

SINGLE: Final = 1  # format: the body is one operation
PACKED: Final = 2
MOST: Final = 256  # operations of a row


def pack(entries: Sequence[Entry]) -> Iterator[tuple[int, Entry]]:
    """Entries of one timeline as they are stored, those that follow each other as one: each row with the number of its first operation."""
    run: list[Entry] = []
    for entry in entries:
        if run and (entry.seq != run[-1].seq + 1 or run[-1].last_event < 0 or len(run) == MOST):
            yield run[0].seq, _packed(run)
            run = []
        run.append(entry)
    if run:
        yield run[0].seq, _packed(run)


def _packed(run: Sequence[Entry]) -> Entry:
    last = run[-1]
    if len(run) == 1:
        return last
    figures = {"last_event": [entry.last_event for entry in run[:-1]], "clock_ns": [entry.clock_ns for entry in run[:-1]]}
    return Entry(last.seq, last.last_event, last.clock_ns, b"\n".join((orjson.dumps(figures), *(entry.body for entry in run))), PACKED)


def unpack(row: Any, after: int) -> Iterator[Entry]:
    """The entries of a row of the journal, checked. `after`: the number of the one before it, so that a row that cannot be read has a place."""
    sound = row.mark is None or row.mark == mark(row.line, row.seq, row.format, row.body)
    if row.format != PACKED:
        yield Entry(row.seq, row.last_event, row.clock_ns, row.body, row.format, None if sound else "its checksum is wrong")
    elif not sound:
        yield Entry(min(after + 1, row.seq), row.last_event, row.clock_ns, row.body, row.format, "its checksum is wrong")
    else:
        head, *bodies = row.body.split(b"\n")
        figures = orjson.loads(head)
        ends = zip((*figures["last_event"], row.last_event), (*figures["clock_ns"], row.clock_ns), bodies, strict=True)
        for seq, (last_event, clock_ns, body) in enumerate(ends, row.seq - len(bodies) + 1):
            yield Entry(seq, last_event, clock_ns, body)
