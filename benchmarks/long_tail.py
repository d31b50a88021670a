"""What long-tailed synthetic faces look like in numbers, as docs/synthetic.md shows them.

    python benchmarks/long_tail.py [--people 6000 --mean 10]

Nothing is timed or rendered: counts are a pure function of the arguments. Prints a Markdown table.
"""

import argparse
import sys

import numpy as np
from provenance import ROOT

sys.path.insert(0, str(ROOT / "src"))

from manyface.data.synthetic import SyntheticFaces

TAILS = (0.0, 1.0, 10.0, 100.0, 1000.0)


def row(long_tail: float, *, people: int, mean: int) -> str:
    """A line of the table: shares of people and of images, and the extremes."""
    faces = SyntheticFaces(
        num_identities=people, images_per_identity=mean, image_size=32, long_tail=long_tail
    )
    _, counts = faces.images_of(np.arange(people))
    head = np.sort(counts)[-(people // 10) :].sum() / len(faces)
    shares = [np.mean(counts == 1), np.mean(counts <= 3), head]
    percents = " | ".join(f"{share:.0%}".replace("%", " %") for share in shares)
    return f"| {long_tail:g} | {percents} | {np.median(counts):g} | {counts.max()} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=6000)
    parser.add_argument("--mean", type=int, default=10)
    options = parser.parse_args()
    print("| `long_tail` | one image | three or fewer | images of the head tenth | median | most |")
    print("| --- " * 6 + "|")
    for long_tail in TAILS:
        print(row(long_tail, people=options.people, mean=options.mean))


if __name__ == "__main__":
    main()
