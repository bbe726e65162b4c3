"""Page loops run uncompiled too, and come to the same bytes: what makes a debugger and coverage possible, and the compiler a mere detail."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
from core import Kernel, Machine

M = 1 << 20
k = Kernel.boot(Machine.from_dict({"memory": "256M", "swap": "64M"}), seed=7)
call = k.call
a = call("spawn", comm="a").result["pid"]
heap = call("mmap", a, length=4 * M, prot="rw", flags=["private", "anonymous"]).result["address"]
print(call("touch", a, address=heap, length=2 * M, access="write", order="random", seed=3))
print(call("touch", a, address=heap, length=4 * M, access="read"))
b = call("fork", a).result["pid"]
print(call("touch", b, address=heap, length=4 * M, access="write", stride=2))
call("create_file", path="/data/f", size=2 * M)
text = call("mmap", b, length=2 * M, prot="r", flags=["private"], file="/data/f").result["address"]
print(call("touch", b, address=text, length=2 * M, access="read"))
print(call("munmap", b, address=heap + M, length=M), call("mremap", b, address=heap, old_length=M, new_length=8 * M))
call("mkdir", path="/sys/fs/cgroup/g")
call("put", path="/sys/fs/cgroup/g/memory.max", data=b"1M")
call("put", path="/sys/fs/cgroup/g/cgroup.procs", data=str(a).encode())
print(call("touch", a, address=heap, length=4 * M, access="write"))
call("advance", duration_ns=5_000_000_000)
print(k.read("/proc/meminfo").decode(), k.read("/proc/vmstat").decode(), k.digest())
"""


def output(**environment: str) -> str:
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_uncompiled_loops_come_to_the_same_bytes() -> None:
    compiled = output()
    assert "minor=512" in compiled.splitlines()[0]
    assert output(NUMBA_DISABLE_JIT="1") == compiled
