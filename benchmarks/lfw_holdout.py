"""The lists by which recipes/lfw.toml was chosen: people held out of LFW's peopleDevTrain.

    python benchmarks/lfw_holdout.py lfw-112.tar OUT [--share 0.25]

writes OUT/people-fit.txt (people to train on) and OUT/pairs-held-out.txt (pairs of the others, in
LFW's format, 10 folds, no person in two folds). pairsDevTest is left for the final score. Who is
held out depends on a hash of the name alone.
"""

import argparse
import hashlib
import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from manyface.base.random import numpy_generator
from manyface.data import find_text, open_records, read_people, select_records
from manyface.data.records import Records

FOLDS = 10
SAME_PER_PERSON = 6


def is_held_out(name: str, share: float) -> bool:
    """Whether a person is kept from training."""
    digest = hashlib.sha256(f"held out: {name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32


def draw_pairs(counts: dict[str, int], *, seed: int) -> list[str]:
    """Lines of a pairs file: up to 6 same pairs a person, as many different pairs in each fold."""
    generator = numpy_generator(seed, "lfw", "held out")
    people = [str(name) for name in generator.permutation(sorted(counts))]
    folds = [people[fold::FOLDS] for fold in range(FOLDS)]
    same = [[line for name in fold for line in _same(name, counts[name])] for fold in folds]
    per_fold = min(len(lines) for lines in same)
    lines = [f"{FOLDS}\t{per_fold}"]
    for fold, candidates in zip(folds, same, strict=True):
        lines += [str(line) for line in generator.permutation(candidates)[:per_fold]]
        for _ in range(per_fold):
            one, two = (str(name) for name in generator.choice(fold, 2, replace=False))
            first, second = (generator.integers(1, counts[name] + 1) for name in (one, two))
            lines.append(f"{one}\t{first}\t{two}\t{second}")
    return lines


def _same(name: str, count: int) -> list[str]:
    pairs = itertools.combinations(range(1, min(count, 4) + 1), 2)
    return [f"{name}\t{one}\t{two}" for one, two in itertools.islice(pairs, SAME_PER_PERSON)]


def _counts(records: Records) -> dict[str, int]:
    images = np.diff(records.first_images)
    return dict(zip(records.identity_names, (int(n) for n in images), strict=True))


def main() -> None:
    """Write both lists."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.25)
    options = parser.parse_args()
    everything = open_records(options.data)
    people = read_people(find_text(everything, "lfw-lists/peopleDevTrain.txt"))
    counts = _counts(select_records(everything, people=people))
    held_out = {name: n for name, n in counts.items() if is_held_out(name, options.share)}
    options.out.mkdir(parents=True, exist_ok=True)
    fit = sorted(counts.keys() - held_out.keys())
    (options.out / "people-fit.txt").write_text("\n".join(fit) + "\n")
    pairs = draw_pairs(held_out, seed=0)
    (options.out / "pairs-held-out.txt").write_text("\n".join(pairs) + "\n")
    print(f"{len(fit)} people to fit, {len(held_out)} held out, {len(pairs) - 1} pairs")


if __name__ == "__main__":
    main()
