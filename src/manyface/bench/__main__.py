"""The process of one measurement: `python -m manyface.bench METHOD SHAPE`, started by process.py.

Says what it does in lines of JSON: {"doing": text} any number of times, then {"found": figures} or
{"error": text}. Beside the method's figures it finds the rate of a matrix product, in this process
too and after the steps, so that it comes from the same minutes and adds no memory to them.
"""

import json
import sys
from typing import Any

from manyface.base.errors import ManyfaceError
from manyface.bench.measure import measure, product_figures
from manyface.bench.shape import Shape


def main() -> None:
    """Measure what the arguments say."""
    name, shape = sys.argv[1], Shape(**json.loads(sys.argv[2]))
    try:
        figures = measure(name, shape, report=lambda text: _say(doing=text))
        _say(found={**figures, **product_figures(name, shape)})
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
