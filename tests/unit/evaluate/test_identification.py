"""Searches against brute force: ranks with ties, open sets, distractors in blocks, MegaFace."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from manyface.base.errors import DataError, ManyfaceError
from manyface.base.random import numpy_generator
from manyface.evaluate import blocks, metrics, ranks
from manyface.evaluate.identification import identification_result, megaface_result
from manyface.evaluate.ranks import search
from manyface.evaluate.tinyface import read_tinyface

DIM = 16


def coded(seed: int, images: int, people: int, *, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 16 values -1, 1: scores are whole sixteenths, exact in float32, with many ties."""
    rng = numpy_generator(seed, "searched")
    labels = rng.integers(first, first + people, images)
    code = numpy_generator(0, "codes").choice([-1.0, 1.0], size=(200, DIM))
    flip = np.where(rng.random((images, DIM)) < 0.25, -1.0, 1.0)
    return (code[labels] * flip).astype(np.float32), labels


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return blocks.unit_rows(left, "x") @ blocks.unit_rows(right, "y").T


def brute_rank(score: np.ndarray, is_mate: np.ndarray) -> np.ndarray:
    """The rank of each row's best mate, everybody as good before it."""
    best = np.where(is_mate, score, -np.inf).max(axis=1)
    return 1 + ((score >= best[:, None]) & ~is_mate).sum(axis=1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    sizes=st.tuples(st.integers(1, 30), st.integers(1, 40), st.integers(0, 40)),
    cut=st.integers(1, 50),
)
def test_ranks_and_open_sets_equal_brute_force(
    seed: int, sizes: tuple[int, int, int], cut: int
) -> None:
    probes, who = coded(seed, sizes[0], 12)
    gallery, people = coded(seed + 1, sizes[1], 12)
    gallery, people = gallery[people < 8], people[people < 8]
    strangers, _ = coded(seed + 2, sizes[2] + 1, 50, first=100)
    parts = [(gallery[i : i + cut], people[i : i + cut]) for i in range(0, len(gallery), cut)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "ROWS", 7)
        patch.setattr(ranks, "COLUMNS", 13)
        found = search(probes, who, [*parts, (strangers, None)], ranks=(1, 3, 7))
        result = identification_result(
            probes, who, [*parts, (strangers, None)], name="x", ranks=(1, 3, 7), fpirs=(0.5, 0.1),
            resamples=0,
        )  # fmt: skip
    score = cosines(probes, np.concatenate([gallery, strangers]))
    is_mate = np.append(who[:, None] == people, np.zeros((len(who), len(strangers)), bool), axis=1)
    mated = is_mate.any(axis=1)
    np.testing.assert_array_equal(found.is_mated, mated)
    rank = brute_rank(score[mated], is_mate[mated])
    for k in (1, 3, 7):
        np.testing.assert_array_equal(found.found(k)[mated], rank <= k)
        assert not found.found(k)[~mated].any()
        if mated.any():
            assert result.value(f"rank-{k}") == np.mean(rank <= k)
    if mated.any() and not mated.all():
        mate = np.where(is_mate, score, -np.inf).max(axis=1)[mated]
        highest = score[~mated].max(axis=1)
        for fpir in (0.5, 0.1):
            if fpir * len(highest) >= 1:
                expected = max(
                    np.mean((rank == 1) & (mate >= t))
                    for t in np.append(score.ravel(), 2)
                    if np.mean(highest >= t) <= fpir
                )
                assert result.value(f"tpir@fpir={fpir:g}") == expected
            else:
                assert result.value(f"tpir@fpir={fpir:g}") is None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), images=st.integers(4, 40), distractors=st.integers(12, 60))
def test_megaface_equals_brute_force(seed: int, images: int, distractors: int) -> None:
    probes, who = coded(seed, images, 5)
    others, _ = coded(seed + 2, distractors, 50, first=100)
    if len(np.unique(who)) == len(who):
        return
    result = megaface_result(
        probes, who, [others[:7], others[7:]], name="x", ranks=(1, 5), fars=(0.1, 0.01), resamples=9
    )
    own, against = cosines(probes, probes), cosines(probes, others)
    pairs = [(i, j) for i in range(images) for j in range(images) if i != j and who[i] == who[j]]
    for rank in (1, 5):
        hits = [(against[i] >= own[i, j]).sum() < rank for i, j in pairs]
        assert result.value(f"rank-{rank}") == pytest.approx(np.mean(hits), abs=1e-12)
    genuine = np.array([own[i, j] for i, j in pairs])
    similarity = np.concatenate([genuine, against.ravel()])
    same = np.arange(len(similarity)) < len(genuine)
    for far in (0.1, 0.01):
        exact = metrics.tar_at_far(similarity, same, far)
        found = result.value(f"tar@far={far:g}")
        assert found == exact if exact is None else found == pytest.approx(exact, abs=1e-12)
    assert all(s.low <= s.high for s in result.scores)


def test_a_tie_counts_against_the_mate() -> None:
    probes, mate = np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]])
    gallery = [(mate, np.array([7])), (mate.copy(), None)]
    found = search(probes, np.array([7]), gallery, ranks=(1, 2))
    assert not found.found(1)[0]
    assert found.found(2)[0]
    with pytest.raises(DataError, match="rank 3 was not kept"):
        found.found(3)


def test_a_stranger_never_is_a_mate_whatever_its_place() -> None:
    probes, who = coded(0, 10, 12)
    result = identification_result(probes, who, [(probes, None)], name="x", resamples=0)
    assert result.scores == []
    assert "no probe has a mate" in result.notes[0]
    everyone = identification_result(probes, who, [(probes, who)], name="x", resamples=0)
    assert everyone.value("rank-1") == 1.0
    assert "every probe has a mate" in everyone.notes[0]


def test_a_small_fpir_is_said_and_not_extrapolated() -> None:
    probes, who = coded(0, 60, 12)
    gallery, people = coded(1, 40, 6)
    result = identification_result(probes, who, [(gallery, people)], name="x", fpirs=(0.2, 1e-3))
    assert result.value("tpir@fpir=0.2") is not None
    assert result.value("tpir@fpir=0.001") is None
    assert any("can show no FPIR below" in note for note in result.notes)
    for score in result.scores:
        assert score.low <= score.value <= score.high
    assert (np.diff(result.curves[0].tar) >= 0).all()


def test_progress_tells_how_far_the_distractors_are() -> None:
    probes, who = coded(0, 20, 3)
    seen: list[tuple[int, int]] = []
    megaface_result(
        probes,
        who,
        [probes, probes],
        name="x",
        fars=(0.5,),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(20, 40), (40, 40)]


@pytest.mark.parametrize(
    "probes, labels, gallery, message",
    [
        (np.ones((0, 3)), np.ones(0, int), [], "0 probes"),
        (np.ones((2, 3)), np.ones(1, int), [], "2 probes and 1 labels"),
        (np.ones((1, 3)), np.ones(1, int), [], "the gallery is empty"),
        (
            np.ones((1, 3)),
            np.ones(1, int),
            [(np.ones((4, 3)), np.ones(3, int))],
            "4 embeddings and",
        ),
        (np.ones((1, 3)), np.ones(1, int), [(np.ones((4, 2)), None)], "the gallery has 2"),
        (np.ones((1, 3)), np.ones(1, int), [(np.full((4, 3), np.nan), None)], "is not finite"),
        (np.full((1, 3), np.inf), np.ones(1, int), [], "is not finite"),
    ],
)
def test_what_cannot_be_searched_is_said(
    probes: np.ndarray, labels: np.ndarray, gallery: list, message: str
) -> None:
    with pytest.raises(ManyfaceError, match=message):
        search(probes, labels, gallery)


def test_megaface_needs_two_images_of_a_person() -> None:
    with pytest.raises(DataError, match="no person has two probes"):
        megaface_result(np.eye(3), np.arange(3), [np.eye(3)], name="x")


def test_tinyface_is_read_by_the_names_of_its_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no TinyFace set"):
        read_tinyface(tmp_path)
    for part, names in {
        "Probe": ["12_3.jpg", "7_1.png", ".DS_Store"],
        "Gallery_Match": ["7_2.jpg"],
        "Gallery_Distractor": ["a.jpg", "b.jpg"],
    }.items():
        (tmp_path / "Testing_Set" / part).mkdir(parents=True)
        for name in names:
            (tmp_path / "Testing_Set" / part / name).write_bytes(b"")
    found = read_tinyface(tmp_path)
    assert found.probe_labels.tolist() == [7, 12]
    assert found.gallery_labels.tolist() == [7]
    assert [path.name for path in found.distractors] == ["a.jpg", "b.jpg"]
    (tmp_path / "Testing_Set/Probe/ann_1.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="begins with a person's number"):
        read_tinyface(tmp_path / "Testing_Set")
    (tmp_path / "Testing_Set/Gallery_Match/7_2.jpg").unlink()
    with pytest.raises(DataError, match="holds no images"):
        read_tinyface(tmp_path)
    (tmp_path / "Testing_Set/Gallery_Match").rmdir()
    with pytest.raises(DataError, match="is missing"):
        read_tinyface(tmp_path)


def write_tinyface(root: Path, mat: dict[str, dict[str, object]]) -> Path:
    """Two probes, two mates and a distractor, and the lists `mat`."""
    for part, names in {
        "Probe": ["12_3.jpg", "7_1.png", "99_1.jpg"],
        "Gallery_Match": ["7_2.jpg", "12_9.jpg"],
        "Gallery_Distractor": ["a.jpg"],
    }.items():
        (root / part).mkdir(parents=True)
        for name in names:
            (root / part / name).write_bytes(b"")
    for name, content in mat.items():
        savemat(root / f"{name}_img_ID_pairs.mat", content)
    return root


def test_tinyface_lists_say_which_photos_count(tmp_path: Path) -> None:
    listed = {
        "probe": {
            "probe_set": np.array([["7_1.jpg"], ["12_3.jpg"]], dtype=object),
            "probe_ids": np.array([[7], [12]], np.uint16),
        },
        "gallery_match": {
            "gallery_set": np.array([["12_9.jpg"], ["7_2.jpg"]], dtype=object),
            "gallery_ids": np.array([[12], [7]], np.uint16),
        },
    }
    root = write_tinyface(tmp_path / "set", listed)
    found = read_tinyface(root)
    assert [path.name for path in found.probes] == ["7_1.png", "12_3.jpg"]  # 99 is in no list
    assert found.probe_labels.tolist() == [7, 12]
    assert [path.name for path in found.gallery] == ["7_2.jpg", "12_9.jpg"]
    assert found.gallery_labels.tolist() == [7, 12]
    assert found.notes == []
    apart = read_tinyface(write_tinyface(tmp_path / "aligned", {}), lists=root)
    assert apart.probe_labels.tolist() == [7, 12]
    assert read_tinyface(tmp_path / "aligned").probe_labels.tolist() == [7, 12, 99]
    (root / "Probe/7_1.png").unlink()
    with pytest.raises(DataError, match=r"lists 2 photos, 1 of which are not in .*Probe, as 7_1"):
        read_tinyface(root)


def test_tinyface_lists_without_scipy_and_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"probe_set": np.array([["7_1.jpg"]], dtype=object), "probe_ids": np.array([[7, 8]])}
    root = write_tinyface(tmp_path / "set", {"probe": content})
    with pytest.raises(DataError, match="1 photos and 2 persons"):
        read_tinyface(root)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "scipy.io", None)
        found = read_tinyface(root)
    assert found.probe_labels.tolist() == [7, 12, 99]
    assert "pip install '.[tinyface]' in manyface's folder" in found.notes[0]
    path = root / "probe_img_ID_pairs.mat"
    for data in (b"", b"MATLAB 5.0 MAT-file" + bytes(200), path.read_bytes()[:150]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="is no list of TinyFace, expected probe_set"):
            read_tinyface(root)


def test_more_trials_than_can_be_kept_are_said_before_the_search() -> None:
    probes, who = coded(0, 20, 3)
    huge = np.broadcast_to(np.ones((1, DIM), np.float32), (10**8, DIM))
    with pytest.raises(DataError, match="most similar ones; expected 67108864 at most"):
        megaface_result(probes, who, [huge], name="x", fars=(0.5,))
