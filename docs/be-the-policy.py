"""A program that is the reclaim policy of a session: FIFO, over a websocket. `python be-the-policy.py ws://127.0.0.1:8000 SESSION`"""

import json
import sys

from websockets.sync.client import connect


class Fifo:
    """Pages in the order of arrival, oldest first; `where` says what and whose each is."""

    def __init__(self):
        self.where = {}

    def isolate(self, asked):
        for pfn in asked["removed"]:
            self.where.pop(pfn, None)
        added = asked["added"]
        for pfn, *about in zip(added["pfn"], added["kind"], added["cgroup"], added["node"], strict=False):
            self.where.pop(pfn, None)  # put back: it arrives again
            self.where[pfn] = about
        for pfn in asked["written"]:  # in swap already: first to go
            self.where = {pfn: self.where.pop(pfn), **self.where}
        mine = [pfn for pfn, (kind, cgroup, node) in self.where.items()
                if kind in asked["kinds"] and (cgroup, node) == (asked["cgroup"], asked["node"])]
        return mine[: asked["want"]]


def play(url, policy):
    with connect(url) as socket:
        for text in socket:
            message = json.loads(text)
            if message["type"] == "isolate":
                socket.send(json.dumps({"type": "take", "id": message["id"], "pages": policy.isolate(message)}))


if __name__ == "__main__":
    play(f"{sys.argv[1]}/v1/sessions/{sys.argv[2]}/policy", Fifo())
