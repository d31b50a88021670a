"""What the launcher begins in these tests: `manyface`, with faults armed if the test asks for them.

    torchrun ... tests/reliability/rank.py train recipe.toml ...    (faults: JSON in FAULTS)

It leaves the process id of each rank in the folder FOLDER, so that a test knows whom to kill.
"""

import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

FAULTS, FOLDER = "MANYFACE_TEST_FAULTS", "MANYFACE_TEST_FOLDER"


def main(words: Sequence[str]) -> None:
    """Run `manyface words` as this rank; raises SystemExit."""
    from faults import arm

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # a fork has the launcher's
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # to write one takes time and leaves a file
    folder, rank = Path(os.environ[FOLDER]), os.environ["RANK"]
    (folder / f"rank-{rank}.pid").write_text(str(os.getpid()))
    for fault in json.loads(os.environ.get(FAULTS, "[]")):
        arm(folder, **fault)
    from manyface.cli import main as manyface

    sys.argv[1:] = words
    sys.exit(manyface())  # as the program ends


if __name__ == "__main__":
    main(sys.argv[1:])
