"""The process of one measurement, started by process.py:

    python -m manyface.bench head METHOD SHAPE     (shape.py, as JSON)
    python -m manyface.bench train RECIPE OPTIONS  (the text of a recipe; training.py)

Says what it does in lines of JSON: {"doing": text} any number of times, then {"found": figures} or
{"error": text}. Beside a head's figures it finds the rate of a matrix product, in this process
too and after the steps, so that it comes from the same minutes and adds no memory to them.
"""

import json
import sys
from typing import Any

from manyface.base.errors import ManyfaceError, one_line
from manyface.bench.measure import measure, product_figures
from manyface.bench.shape import Shape
from manyface.bench.training import TrainingOptions, measure_training
from manyface.config import parse_config


def main() -> None:
    """Measure what the arguments say."""
    try:
        _say(found=_measure(*sys.argv[1:]))
    except ManyfaceError as error:
        _say(error=str(error))
    except Exception as error:  # anything: the process above says it in a line
        _say(error=one_line(error))


def _measure(kind: str, what: str, options: str) -> dict[str, Any]:
    if kind == "train":
        return measure_training(
            parse_config(what), TrainingOptions(**json.loads(options)), report=_doing
        )
    shape = Shape(**json.loads(options))
    return {**measure(what, shape, report=_doing), **product_figures(what, shape)}


def _doing(text: str) -> None:
    _say(doing=text)


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
