"""Whether what is stored of a session still plays to the state that it had."""

import orjson

from app.host.history import Past
from app.host.rebuild import Unusable, rebuild
from app.storage import Database, Record, history, sql
from core import Kernel, Machine


def replays(database: Database, record: Record) -> str | None:
    """Play a session again from its boot: None, or what is wrong. Its digest must be that of the newest snapshot, its figures the journal's."""
    snapshot = database.read(lambda conn: sql.newest_snapshot(conn, record.line))
    entries = database.read(lambda conn: list(history.entries(conn, record.line)))
    if not entries or entries[0].seq != 0:
        return "its boot is missing"
    machine, at = Machine.from_dict(orjson.loads(record.machine)), 0 if snapshot is None else snapshot.seq
    found = rebuild(machine, record.seed, Past(None, entries[0].last_event, entries[1 : at + 1]), lambda: None)
    if snapshot is not None and found.broke is None and found.kernel.digest() != Kernel.restore(snapshot.kernel).digest():
        return f"played again up to operation {at} it is not what the snapshot there says"
    if found.broke is None and found.differs is None and snapshot is not None:
        try:
            found = rebuild(machine, record.seed, Past(snapshot, 0, entries[at + 1 :]), lambda: None)
        except Unusable as error:
            return str(error)
    if found.broke is not None:
        return found.broke
    return None if found.differs is None else f"played again it comes to other figures from operation {found.differs['seq']} on"
