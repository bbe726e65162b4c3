"""Why the kernel did what it did, over HTTP: each topic about huge pages, KSM, nodes, pools and the TLB has its reason in words."""

from typing import Any

import pytest

M = 1 << 20
THP = "/sys/kernel/mm/transparent_hugepage/"


class Story:
    """A process on a machine of two nodes, and what it is told about one of its pages."""

    def __init__(self, service: Any, **machine: Any) -> None:
        self.session = service.session(machine={"memory": "1G", "nodes": 2, "cpus": 2, "transparent_hugepage": "madvise", **machine})
        self.pid = self.session.spawn("a")

    def mmap(self, length: int, *flags: str, **args: Any) -> str:
        body = {"length": length, "prot": "rw", "flags": [*(flags or ("private",)), "anonymous"], **args}
        return str(self.session.call(self.pid, "mmap", **body)["result"]["address"])

    def touch(self, address: str, length: int, **args: Any) -> None:
        self.session.call(self.pid, "touch", **{"address": address, "length": length, "access": "write", **args})

    def advise(self, address: str, length: int, advice: str) -> None:
        self.session.call(self.pid, "madvise", address=address, length=length, advice=advice)

    def told(self, topic: str, address: str) -> dict[str, Any]:
        answer = self.session.get(f"/processes/{self.pid}/explain/{topic}?address={address}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def test_why_no_huge_page_here(service: Any) -> None:
    story = Story(service)
    address = story.mmap(4 * M, align=2 * M)
    story.touch(address, 4096)
    assert "madvise" in story.told("thp", address)["at"]["why"]
    story.advise(address, 4 * M, "hugepage")
    later = hex(int(address, 16) + 2 * M)
    story.touch(later, 4096)
    assert "huge" in story.told("thp", later)["at"]["mapped"]


def test_why_this_collapse(service: Any) -> None:
    story = Story(service)
    address = story.mmap(2 * M, align=2 * M)
    story.touch(address, M)
    story.advise(address, 2 * M, "hugepage")
    story.session.put(THP + "khugepaged/max_ptes_none", "255")
    assert "max_ptes_none" in str(story.told("thp", address)["at"]["khugepaged"])
    story.session.put(THP + "khugepaged/max_ptes_none", "511")
    story.session.put(THP + "khugepaged/scan_sleep_millisecs", "10")
    story.session.post("/clock", {"advance": "5s"})
    told = story.told("thp", address)
    assert "huge" in told["at"]["mapped"] and told["khugepaged"]["last_collapse"] is not None


@pytest.mark.parametrize(("huge", "mode"), [(False, "bind"), (True, "bind"), (False, "preferred")])
def test_why_this_node(service: Any, huge: bool, mode: str) -> None:
    story = Story(service, transparent_hugepage="always" if huge else "never")
    address = story.mmap(4 * M, align=2 * M)
    story.session.call(story.pid, "mbind", address=address, length=4 * M, mode=mode, nodes=[1])
    story.touch(address, 4 * M)
    told = story.told("node", address)
    assert told["policy"] == {"whose": "mapping", "mode": mode, "nodes": [1]} and told["node"] == 1
    assert (told["page"]["node"], told["page"]["distance"]) == (1, 20)
    assert "another node" in told["page"]["why"]


def test_why_a_near_node_is_reclaimed(service: Any) -> None:
    story = Story(service, memory="256M", transparent_hugepage="never", swap="0")
    story.session.post("/files", {"path": "/data/f", "size": "160M"})
    story.session.call(story.pid, "sched_setaffinity", cpus=[0])
    story.session.put("/proc/sys/vm/zone_reclaim_mode", "1")
    story.session.call(story.pid, "read", path="/data/f", offset=0, length=160 * M)
    address = story.mmap(M)
    verdicts = []
    for page in range(64):
        told = story.told("node", address)
        verdicts.append(told["zones"][0]["verdict"])
        assert told["node"] == 0
        story.touch(hex(int(address, 16) + page * 4096), 4096)
    assert "reclaimed" in verdicts and "chosen" in verdicts


def test_why_a_tlb_miss(service: Any) -> None:
    story = Story(service, transparent_hugepage="never")
    address = story.mmap(16 * M)
    story.touch(address, 16 * M)
    told = story.told("tlb", address)
    assert told["page"]["found"] is None and told["page"]["why"]
    last = hex(int(address, 16) + 16 * M - 4096)
    assert story.told("tlb", last)["page"]["found"] is not None


def test_why_this_merge(service: Any) -> None:
    story = Story(service, transparent_hugepage="never")
    address = story.mmap(M)
    story.touch(address, M, fill=7)
    story.advise(address, M, "mergeable")
    story.session.put("/sys/kernel/mm/ksm/run", "1")
    story.session.post("/clock", {"advance": "30s"})
    told = story.told("ksm", address)
    assert told["page"]["sharers"] == 256 and told["page"]["why"]


def test_why_this_page_of_a_pool(service: Any) -> None:
    story = Story(service)
    story.session.put("/proc/sys/vm/nr_hugepages", "1")
    address = story.mmap(2 * M, "private", "hugetlb")
    free = story.mmap(2 * M, "private", "hugetlb", "noreserve")
    promised, unpromised = story.told("hugetlb", address), story.told("hugetlb", free)
    assert promised["at"]["promised"] and promised["at"]["outcome"] == "pool"
    assert not unpromised["at"]["promised"] and unpromised["at"]["outcome"] == "SIGBUS" and unpromised["at"]["why"]
