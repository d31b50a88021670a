"""IJB-C at full size: the time and memory of the protocol, from files and features to all figures.

    python benchmarks/ijb.py [--folder DIR]

The meta files are written in their real text formats, with the sizes of IJB-C (469,375 faces,
23,124 templates, 15,658,489 pairs; 1:N with 1,772 and 1,759 gallery templates and 19,593 probes),
and random features of the faces and of their mirror images, 512 values each: 3 GB in DIR. A process
of its own then reads all of it and gives every figure of 1:1 and 1:N with intervals. The features
are in its memory (1.9 GB) until templates are pooled, and counted; reading them is not timed, as
they come from a net. The peak is of anonymous and shared pages.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import write_result

from manyface.base.threads import usable_cores
from manyface.evaluate.ijb_files import SIZES, read_faces, read_galleries, read_template_pairs
from manyface.evaluate.ijb_identify import identify_templates
from manyface.evaluate.ijb_verify import verify_templates
from manyface.evaluate.templates import Templates, Variant, pool_templates
from manyface.observe.memory import MemoryMeter

FACES, TEMPLATES, PAIRS = SIZES["ijbc"]
GALLERIES, SUBJECTS = (1772, 1759), 3531
SAME_PAIRS = 19_557
DIM = 512


def write_set(folder: Path) -> None:
    """Meta files and features of random subjects."""
    rng = np.random.default_rng(0)
    meta = folder / "meta"
    meta.mkdir(parents=True)
    # The first templates are galleries, one of each subject; the others are probes.
    subject = np.concatenate([np.arange(SUBJECTS), rng.integers(0, SUBJECTS, TEMPLATES - SUBJECTS)])
    template = np.concatenate([np.arange(TEMPLATES), rng.integers(0, TEMPLATES, FACES - TEMPLATES)])
    template.sort()
    media = template * 8 + rng.integers(0, 8, FACES)
    write_faces(meta, template + 1, media, rng)
    write_pairs(meta / "ijbc_template_pair_label.txt", subject, rng)
    ends = np.cumsum((0, *GALLERIES, TEMPLATES - SUBJECTS))
    for name, first, last in zip(
        ("gallery_G1", "gallery_G2", "probe_mixed"), ends[:-1], ends[1:], strict=True
    ):
        lines = [f"{k + 1},{subject[k]},img/{k}.jpg\n" for k in range(first, last)]
        (meta / f"ijbc_1N_{name}.csv").write_text(
            "TEMPLATE_ID,SUBJECT_ID,FILENAME\n" + "".join(lines)
        )
    write_features(folder, subject[template], rng)


def write_faces(
    meta: Path, template: np.ndarray, media: np.ndarray, rng: np.random.Generator
) -> None:
    """Both lists of faces."""
    with (meta / "ijbc_face_tid_mid.txt").open("w") as file:
        file.writelines(f"{k + 1}.jpg {template[k]} {media[k]}\n" for k in range(FACES))
    values = rng.uniform(20, 90, (FACES, 10)).round(3)
    scores = rng.uniform(0.3, 1, FACES).round(3)
    with (meta / "ijbc_name_5pts_score.txt").open("w") as file:
        for k, (row, score) in enumerate(
            zip(values.tolist(), scores.tolist(), strict=True), start=1
        ):
            file.write(f"{k}.jpg {' '.join(map(str, row))} {score}\n")


def write_pairs(path: Path, subject: np.ndarray, rng: np.random.Generator) -> None:
    """A gallery template and a probe in each, same pairs first."""
    probes = np.arange(SUBJECTS, TEMPLATES)
    same = rng.permutation(probes)[:SAME_PAIRS]
    cells = rng.choice(SUBJECTS * len(probes), PAIRS, replace=False)
    left, right = cells // len(probes), probes[cells % len(probes)]
    kept = subject[left] != subject[right]
    left, right = left[kept][: PAIRS - SAME_PAIRS], right[kept][: PAIRS - SAME_PAIRS]
    left, right = np.concatenate([subject[same], left]), np.concatenate([same, right])
    with path.open("w") as file:
        for start in range(0, len(left), 1 << 20):
            some, other = (side[start : start + (1 << 20)] for side in (left, right))
            label = (subject[some] == subject[other]).astype(int)
            rows = zip(some.tolist(), other.tolist(), label.tolist(), strict=True)
            file.writelines(f"{a + 1} {b + 1} {answer}\n" for a, b, answer in rows)


def write_features(folder: Path, subject: np.ndarray, rng: np.random.Generator) -> None:
    """Features of faces and mirror images: random subjects, some harder than others."""
    centers = rng.standard_normal((SUBJECTS, DIM), dtype=np.float32)
    hard = rng.uniform(2, 9, SUBJECTS).astype(np.float32)
    for name in ("features", "mirrored"):
        found = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (FACES, DIM))
        for start in range(0, FACES, 1 << 14):
            mine = subject[start : start + (1 << 14)]
            noise = rng.standard_normal((len(mine), DIM), dtype=np.float32)
            found[start : start + len(mine)] = centers[mine] + hard[mine, None] * noise
        found.flush()


class Clock:
    """`with clock("part"): ...` adds to `clock.seconds`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - before


def pooled(folder: Path, clock: Clock) -> Templates:
    """The templates of the set; features and lists of faces are let go of."""
    features, mirrored = np.load(folder / "features.npy"), np.load(folder / "mirrored.npy")
    with clock("read_faces"):
        faces = read_faces(folder)
    with clock("pool_templates"):
        return pool_templates(
            features,
            faces.templates,
            faces.media,
            mirrored=mirrored,
            detector_scores=faces.detector_scores,
            variant=Variant.of("N1D1F1"),
        )


def measure(folder: Path) -> dict[str, Any]:
    """Every part of the protocol, timed."""
    clock = Clock()
    with MemoryMeter() as meter:
        templates = pooled(folder, clock)
        pooling_peak = meter.peak_bytes
        with clock("read_pairs"):
            pairs = read_template_pairs(folder)
        with clock("verify_1_1"):
            one = verify_templates(templates, pairs, name="ijbc")
        with clock("read_galleries"):
            galleries, probes = read_galleries(folder)
        with clock("identify_1_n"):
            many = identify_templates(templates, galleries, probes, name="ijbc")
        peak = meter.peak_bytes
    scores = {
        score.name: {"value": score.value, "low": score.low, "high": score.high}
        for score in [*one.scores, *many.scores]
    }
    return {
        "seconds": clock.seconds,
        "total_seconds": sum(clock.seconds.values()),
        "peak_bytes": peak,
        "peak_while_pooling_bytes": pooling_peak,
        "scores": scores,
        "notes": [*one.notes, *many.notes],
    }


def main() -> None:
    """Write the set, measure in a process of its own, write results/ijb.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        torch.set_num_threads(usable_cores())
        print(json.dumps(measure(options.measure)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        write_set(Path(name))
        command = [sys.executable, __file__, "--measure", name]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    sizes = {"faces": FACES, "templates": TEMPLATES, "pairs": PAIRS, "dim": DIM}
    for key, value in found.items():
        print(key, value)
    write_result("ijb", {**sizes, **found})


if __name__ == "__main__":
    main()
