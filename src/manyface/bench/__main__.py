"""The process of one measurement: `python -m manyface.bench METHOD SHAPE`, started by process.py.

Says what it does in lines of JSON: {"doing": text} any number of times, then {"found": figures} or
{"error": text}. METHOD "product" is the matrix product that all are measured by.
"""

import json
import sys
from typing import Any

from manyface.base.errors import ManyfaceError
from manyface.bench.measure import PRODUCT_SIZE, measure, product_rate
from manyface.bench.shape import Shape


def main() -> None:
    """Measure what the arguments say."""
    name, shape = sys.argv[1], Shape(**json.loads(sys.argv[2]))
    try:
        if name == "product":
            _say(found={"size": PRODUCT_SIZE, "flop_per_second": product_rate(shape)})
        else:
            _say(found=measure(name, shape, report=lambda text: _say(doing=text)))
    except ManyfaceError as error:
        _say(error=str(error))
    except Exception as error:  # anything: the process above says it in a line
        first = str(error).strip().partition("\n")[0]
        _say(error=f"{type(error).__name__}: {first}")


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
