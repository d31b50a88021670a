"""Search in a million enrolled people: how fast, how surely, with how much memory.

    python benchmarks/search.py [--people 1000000 --size 512 --queries 500 --folder /fast/disk]

People are unit vectors, one each: in all directions ("random", where nothing leads a graph or a
cell to the right place), or around 1,000 centers that share a common part ("clustered", as nets
that were trained on few people place them: strangers of one center have a cosine of about 0.4). A
face to look for has a cosine of 0.5 to 0.7 to one of them. `recall` is the share of faces whose
most like embedding, by comparing with all, is found. Every method but the exact ones chooses 1,000
candidates, whose cosines are computed. Each runs in a process of its own, one face at a time; its
memory is what it holds more, anonymous and shared, after the searches than before
(the mapped embeddings, 2 D bytes each, are of the file and are given up when memory is short). Two
threads build and multiply; one looks, as no method gains from two for one face.

`manyface` is the whole way: enrol, write the index, open it, search for people by name. The graph
(HNSW) takes long to build, so it is measured on a part, and so is all else for comparison.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import write_result

from manyface.gallery import Faces, Maker, PeopleIndex, Search
from manyface.gallery.search import _sorted_by_cosine
from manyface.observe.memory import give_back_freed, resident_bytes

CANDIDATES, THREADS, STEP = 1000, 2, 50_000
# faiss's names; nprobe where there are cells, efSearch where there is a graph.
METHODS: dict[str, tuple[str, dict[str, int]]] = {
    "flat, float32": ("Flat", {}),
    "flat, float16": ("SQfp16", {}),
    "flat, 8 bits": ("SQ8", {}),
    "product quantiser, 4 bits": ("PQ{half_bytes}x4fs", {}),
    "RaBitQ, 1 bit": ("RR{size},RaBitQfs", {}),
    "cells, 8 bits, 64 of 1024": ("IVF1024,SQ8", {"nprobe": 64}),
}
GRAPHS: dict[str, tuple[str, dict[str, int]]] = {
    "graph, 32 links, ef 1024": ("HNSW32,Flat", {"efSearch": 1024}),
}


def make_data(folder: Path, kind: str, people: int, size: int, queries: int) -> None:
    """`embeddings.npy` float16 [people, size], `faces.npy` float32 [queries, size]."""
    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(
        folder / "embeddings.npy", "w+", dtype=np.float16, shape=(people, size)
    )
    centers, common = unit(rng.standard_normal((1000, size))), unit(rng.standard_normal(size))
    for start in range(0, people, STEP):
        some = unit(rng.standard_normal((min(STEP, people - start), size), dtype=np.float32))
        if kind == "clustered":
            some = some + 0.7 * centers[rng.integers(0, 1000, len(some))] + 0.5 * common
        rows[start : start + len(some)] = unit(some)
    rows.flush()
    target = rows[rng.integers(0, people, queries)].astype(np.float32)
    away = rng.standard_normal((queries, size))
    away = unit(away - (away * target).sum(1, keepdims=True) * target)
    cosine = rng.uniform(0.5, 0.7, (queries, 1))
    faces = cosine * target + np.sqrt(1 - cosine**2) * away
    np.save(folder / "faces.npy", unit(faces))


def unit(rows: np.ndarray) -> np.ndarray:
    """float32, of unit length."""
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, mapped, and faces; the threads are set."""
    import faiss

    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    return np.load(folder / "embeddings.npy", mmap_mode="r"), np.load(folder / "faces.npy")


def enrolled(rows: np.ndarray) -> PeopleIndex:
    """Everybody, by name."""
    names = [f"person {k}" for k in range(len(rows))]
    faces = Faces(rows, np.arange(len(rows)), names, ["1.jpg"] * len(rows))
    maker = Maker("benchmark", rows.shape[1])
    return PeopleIndex.new(maker).enrol(faces, source="benchmark", when="")


def find_truth(folder: Path) -> None:
    """`truth.npy`: the most like row of each face, by comparing with all."""
    rows, faces = load(folder)
    best, place = np.full(len(faces), -2, np.float32), np.zeros(len(faces), np.int64)
    for start in range(0, len(rows), STEP):
        cosines = (
            torch.from_numpy(faces)
            @ torch.from_numpy(rows[start : start + STEP].astype(np.float32)).T
        )
        here, where = (each.numpy() for each in cosines.max(dim=1))
        place = np.where(here > best, where + start, place)
        best = np.maximum(best, here)
    np.save(folder / "truth.npy", place)


def ours(folder: Path) -> dict[str, Any]:
    """Enrol, write, open in this process, search by name."""
    rows, faces = load(folder)
    begun = time.perf_counter()
    index = enrolled(rows)
    enrol_seconds = time.perf_counter() - begun
    index.save(folder / "people.index")
    saved = time.perf_counter() - begun
    del index
    give_back_freed()
    before, begun = resident_bytes(), time.perf_counter()
    search = Search(PeopleIndex.open(folder / "people.index"))
    opened = time.perf_counter() - begun
    found = measure(lambda face: int(search.people(face, 5)[0][0].name.split()[1]), folder, faces)
    return {
        **found,
        "build_seconds": enrol_seconds,
        "build_and_save_seconds": saved,
        "open_seconds": opened,
        "memory_bytes": resident_bytes() - before,
        "file_bytes": (folder / "people.index").stat().st_size,
    }


def of_faiss(folder: Path, factory: str, options: dict[str, int], part: int) -> dict[str, Any]:
    """An index of faiss, then the true cosines of its candidates."""
    import faiss

    rows, faces = load(folder)
    rows = rows[:part]
    give_back_freed()
    before, begun = resident_bytes(), time.perf_counter()
    size = rows.shape[1]
    index = faiss.index_factory(
        size, factory.format(size=size, half_bytes=size // 4), faiss.METRIC_INNER_PRODUCT
    )
    index.train(np.array(rows[:: max(1, len(rows) // 100_000)], np.float32))
    for start in range(0, len(rows), STEP):
        index.add(rows[start : start + STEP].astype(np.float32))
    built = time.perf_counter() - begun
    for name, value in options.items():
        if name == "nprobe":
            index.nprobe = value
        else:
            index.hnsw.efSearch = value
    faiss.omp_set_num_threads(1)  # its threads wait for each other: see search.py
    is_exact = factory in ("Flat", "SQfp16")

    def find(face: np.ndarray) -> int:
        _, found = index.search(face, 1 if is_exact else CANDIDATES)
        found = found[:, found[0] >= 0].astype(np.int64)
        return int(found[0, 0] if is_exact else _sorted_by_cosine(rows, face, found)[0][0, 0])

    found = measure(find, folder, faces)
    give_back_freed()
    return {**found, "build_seconds": built, "memory_bytes": resident_bytes() - before}


def measure(find: Callable[[np.ndarray], int], folder: Path, faces: np.ndarray) -> dict[str, Any]:
    """Milliseconds of a search and the share that finds the truth, one face at a time."""
    truth = np.load(folder / "truth.npy")
    find(faces[:1])
    seconds, right = [], []
    for face, row in zip(faces, truth, strict=True):
        begun = time.perf_counter()
        found = find(face[None])
        seconds.append(time.perf_counter() - begun)
        right.append(found == row)
    ms = 1e3 * np.array(seconds)
    return {
        "median_ms": float(np.median(ms)),
        "p99_ms": float(np.quantile(ms, 0.99)),
        "recall_at_1": float(np.mean(right)),
    }


def apart(job: Callable[..., Any], *arguments: Any) -> Any:
    """In a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(job, *arguments).result()


def measure_all(
    folder: Path, people: int, size: int, queries: int, kind: str, methods: dict[str, Any]
) -> dict[str, Any]:
    """Every method on one gallery."""
    apart(make_data, folder, kind, people, size, queries)
    apart(find_truth, folder)
    found: dict[str, Any] = {}
    for name, (factory, options) in methods.items():
        found[name] = apart(of_faiss, folder, factory, options, people)
        show(kind, people, name, found[name])
    found["manyface"] = apart(ours, folder)
    show(kind, people, "manyface", found["manyface"])
    return found


def show(kind: str, people: int, name: str, row: dict[str, Any]) -> None:
    """A line."""
    print(kind, people, name, {key: round(value, 4) for key, value in row.items()}, flush=True)


def main() -> None:
    """Measure and write results/search.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--part", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in ("random", "clustered"):
        for people, methods in (
            (options.part, METHODS | GRAPHS),
            (options.people, METHODS),
        ):
            with tempfile.TemporaryDirectory(dir=options.folder) as name:
                found[f"{kind}, {people} people"] = measure_all(
                    Path(name), people, options.size, options.queries, kind, methods
                )
    write_result("search", {"size": options.size, "queries": options.queries, "cases": found})


if __name__ == "__main__":
    main()
