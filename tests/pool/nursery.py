"""Starts services as forks of one process that has imported the program already: a service that is killed a hundred times need not import it
a hundred times. What runs is `pagewalk serve`, in a process of its own.

Reads commands, one JSON object a line, and answers each by one: {"start": […arguments], "environment": {…}, "out": path, "err": path} → {"pid": N};
{"wait": pid} → {"code": N}.
"""

import json
import os
import sys
import traceback

import app.cli
import app.main
import app.pool.supervisor


def start(arguments: list[str], environment: dict[str, str], out: str, err: str) -> int:
    """A service; its pid."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.environ.update(environment)
    for path, number in ((os.devnull, 0), (out, 1), (err, 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    code = 1
    try:
        code = app.cli.main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Until nobody asks any more."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            answer = {"pid": start(asked["start"], asked["environment"], asked["out"], asked["err"])}
        else:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    assert app.main and app.pool.supervisor
    main()
