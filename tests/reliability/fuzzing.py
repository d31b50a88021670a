"""Damaged files of one kind, read under an audit hook: a program of its own, because a hook cannot
be taken away again.

    python fuzzing.py KIND FOLDER FIRST COUNT

The module `fuzz_KIND` has two functions: `make_case` writes case k, a pure function of k, into a
folder and says where; `read_case` does with it what a run would. Prints one JSON object: cases that
ended in something else than an answer or an error of ours, that took more than 2 seconds of the
processor, or that did what a reader has no business to do.
"""

import importlib
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from own_memory import peak_bytes

from manyface.base.errors import ManyfaceError

SECONDS = 2.0
WARM = 50
FORBIDDEN = ("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "subprocess.Popen",
             "exec", "compile", "import", "pickle.find_class", "socket.connect", "os.remove",
             "os.rename", "os.mkdir", "shutil.rmtree", "ctypes.dlopen")  # fmt: skip

armed = False
events: list[str] = []


def hook(event: str, arguments: tuple[object, ...]) -> None:
    if armed and event.startswith(FORBIDDEN):
        events.append(f"{event} {arguments!r:.200}")
    elif armed and event == "open" and set(str(arguments[1] or "r")) & set("wax+"):
        events.append(f"open {arguments!r:.200}")


def run_case(kind: Any, folder: Path, number: int) -> dict[str, Any]:
    """Seconds that a case took, and what was wrong with it, if anything."""
    global armed
    folder.mkdir()
    path = kind.make_case(folder, number)
    events.clear()
    wrong = None
    start = time.process_time()
    armed = True
    try:
        kind.read_case(path)
    except ManyfaceError:
        pass
    except BaseException:
        armed = False
        wrong = traceback.format_exc()
    armed = False
    seconds = time.process_time() - start
    shutil.rmtree(folder)
    return {"case": number, "error": wrong, "events": list(events), "seconds": seconds}


def main() -> None:
    name, folder, first, count = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    kind = importlib.import_module(f"fuzz_{name}")
    os.fsync = lambda descriptor: None  # a disk that is waited for is all that the cases cost
    for number in range(WARM):  # what is imported late is imported now
        run_case(kind, folder / "warm", number)
    sys.addaudithook(hook)
    failures, slowest = [], 0.0
    for number in range(first, first + count):
        found = run_case(kind, folder / "case", number)
        slowest = max(slowest, found["seconds"])
        if found["error"] or found["events"] or found["seconds"] > SECONDS:
            failures.append(found)
    facts = {"cases": count, "num_failures": len(failures), "failures": failures[:5]}
    print(json.dumps({**facts, "slowest": slowest, "max_rss": peak_bytes()}))


if __name__ == "__main__":
    main()
