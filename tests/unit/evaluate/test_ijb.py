"""IJB: templates, pairs and searches against loops like the field's; damaged and missing files."""

from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from manyface.base.errors import DataError, ManyfaceError
from manyface.base.random import numpy_generator
from manyface.evaluate import metrics
from manyface.evaluate.ijb_files import (
    Subjects,
    TemplatePairs,
    read_faces,
    read_galleries,
    read_template_pairs,
)
from manyface.evaluate.ijb_identify import identify_templates
from manyface.evaluate.ijb_verify import check_pairs, people_of_pairs, verify_templates
from manyface.evaluate.templates import Templates, Variant, pair_cosines, pool_templates

DIM = 12


class Set:
    """Faces of 30 subjects in 90 templates of several media, in no order, and pairs of them."""

    def __init__(self, seed: int = 0, faces: int = 700) -> None:
        rng = numpy_generator(seed, "ijb")
        self.ids = np.sort(rng.choice(5000, 90, replace=False)).astype(np.int32)
        self.subject = np.arange(90, dtype=np.int32) % 30 + 100
        which = np.concatenate([np.arange(90), rng.integers(0, 90, faces - 90)])
        self.templates = self.ids[which]
        self.media = rng.integers(0, 40, faces).astype(np.int32)
        center = rng.normal(size=(30, DIM))
        self.features, self.mirrored = (
            (center[self.subject[which] - 100] + 1.8 * rng.normal(size=(faces, DIM))).astype(
                np.float32
            )
            for _ in range(2)
        )
        self.detector = rng.uniform(0.3, 1.0, faces).astype(np.float32)
        left, right = np.meshgrid(np.arange(30), np.arange(30, 90))
        chosen = rng.permutation(left.size)[: 30 * 60 * 9 // 10]
        left, right = left.ravel()[chosen], right.ravel()[chosen]
        same = self.subject[left] == self.subject[right]
        self.pairs = TemplatePairs(self.ids[left], self.ids[right], same)
        half = self.subject < 115
        gallery = np.arange(90) < 30
        self.galleries = [
            Subjects(self.ids[gallery & side], self.subject[gallery & side])
            for side in (half, ~half)
        ]
        self.probes = Subjects(self.ids[~gallery], self.subject[~gallery])

    def pooled(self, variant: str = "N1D1F1"):
        return pool_templates(
            self.features,
            self.templates,
            self.media,
            mirrored=self.mirrored,
            detector_scores=self.detector,
            variant=Variant.of(variant),
        )

    def pooled_by_loops(self, variant: str) -> np.ndarray:
        """The loops of `eval_ijbc.py`, in float64."""
        norm, detector, flip = (digit == "1" for digit in variant[1::2])
        rows = self.features.astype(np.float64) + (self.mirrored if flip else 0)
        if not norm:
            rows = rows / np.sqrt(np.sum(rows**2, -1, keepdims=True))
        if detector:
            rows = rows * self.detector[:, None]
        found = []
        for template in np.unique(self.templates):
            (mine,) = np.where(self.templates == template)
            parts = [
                rows[mine[self.media[mine] == media]].mean(axis=0)
                for media in np.unique(self.media[mine])
            ]
            found.append(np.sum(parts, axis=0))
        return np.array([row / np.sqrt(row @ row) for row in found])

    def write(self, folder: Path) -> Path:
        meta = folder / "meta"
        meta.mkdir()
        faces = range(len(self.templates))
        rows = zip(self.templates, self.media, strict=True)
        (meta / "ijbc_face_tid_mid.txt").write_text(
            "".join(f"{k}.jpg {t} {m}\n" for k, (t, m) in enumerate(rows, 1))
        )
        points = " ".join(f"{k}.5" for k in range(10))
        (meta / "ijbc_name_5pts_score.txt").write_text(
            "".join(f"{k + 1}.jpg {points} {float(self.detector[k]):.9f}\n" for k in faces)
        )
        listed = zip(self.pairs.left, self.pairs.right, self.pairs.same, strict=True)
        (meta / "ijbc_template_pair_label.txt").write_text(
            "".join(f"{a} {b} {int(s)}\n" for a, b, s in listed)
        )
        named = [("gallery_G1", self.galleries[0]), ("gallery_G2", self.galleries[1])]
        for name, side in [*named, ("probe_mixed", self.probes)]:
            lines = [
                f"{t},{s},img/{k}.jpg,1,2\n"
                for t, s in zip(side.templates, side.subjects, strict=True)
                for k in range(2)
            ]
            (meta / f"ijbc_1N_{name}.csv").write_text(
                "TEMPLATE_ID,SUBJECT_ID,FILE\n" + "".join(lines)
            )
        return folder


@pytest.fixture(scope="module")
def made() -> Set:
    return Set()


@pytest.mark.parametrize("variant", [f"N{n}D{d}F{f}" for n in "01" for d in "01" for f in "01"])
def test_templates_equal_the_loops_of_the_field(
    made: Set, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at_a_time in (1, 7, 10**6):
        monkeypatch.setattr("manyface.evaluate.templates._FACES_AT_A_TIME", at_a_time)
        found = made.pooled(variant)
        np.testing.assert_array_equal(found.ids, made.ids)
        np.testing.assert_allclose(found.vectors, made.pooled_by_loops(variant), atol=1e-12)
    assert str(Variant.of(variant)) == variant


@pytest.mark.parametrize("products", [0, 10**9])
def test_cosines_of_pairs_equal_brute_force(
    made: Set, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyface.evaluate.templates._PRODUCTS_PER_PAIR", products)
    monkeypatch.setattr("manyface.evaluate.templates._ROWS_AT_A_TIME", 7)
    monkeypatch.setattr("manyface.evaluate.templates._PAIRS_AT_A_TIME", 11)
    pooled = made.pooled()
    rows = (pooled.rows_of(side, "pairs") for side in (made.pairs.left, made.pairs.right))
    found = pair_cosines(pooled.vectors, *rows)
    vectors = dict(zip(made.ids, made.pooled_by_loops("N1D1F1"), strict=True))
    expected = [
        vectors[a] @ vectors[b] for a, b in zip(made.pairs.left, made.pairs.right, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_verification_equals_brute_force_and_the_field(made: Set) -> None:
    fars = (0.1, 0.01, 1e-3, 1e-4)
    result = verify_templates(
        made.pooled(), made.pairs, name="x", variant="N1D1F1", fars=fars, resamples=50
    )
    vectors = dict(zip(made.ids, made.pooled_by_loops("N1D1F1"), strict=True))
    similarity = np.array(
        [vectors[a] @ vectors[b] for a, b in zip(made.pairs.left, made.pairs.right, strict=True)]
    )
    fpr, tpr, _ = roc_curve(made.pairs.same, similarity)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    for far in fars:
        _, nearest = min(zip(abs(fpr - far), range(len(fpr)), strict=True))
        if far * np.count_nonzero(~made.pairs.same) < 1:
            assert result.value(f"tar@far={far:g} (nearest ROC point)") is None
            continue
        assert result.value(f"tar@far={far:g} (nearest ROC point)") == pytest.approx(
            tpr[nearest], abs=1e-9
        )
        exact = metrics.tar_at_far(similarity, made.pairs.same, far)
        found = result.value(f"tar@far={far:g}")
        assert found == exact if exact is None else found == pytest.approx(exact, abs=1e-9)
    assert result.value("tar@far=0.0001") is None
    assert any("can show no FAR below" in note for note in result.notes)
    by_name = {score.name: score for score in result.scores}
    assert by_name["tar@far=0.01"].low <= by_name["tar@far=0.01"].value
    assert by_name["tar@far=0.1"].low is None
    assert "N1D1F1" in result.protocol


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40),
    far=st.sampled_from([0.5, 0.2, 0.1, 0.03, 1e-4]),
)
def test_the_nearest_point_is_that_of_scikit_learn(
    scores: list[tuple[int, bool]], far: float
) -> None:
    similarity = np.array([a for a, _ in scores] + [3, 3]) / 8
    same = np.array([b for _, b in scores] + [True, False])
    fpr, tpr, _ = roc_curve(same, similarity)
    fpr, tpr = np.flipud(fpr), np.flipud(tpr)
    _, nearest = min(zip(abs(fpr - far), range(len(fpr)), strict=True))
    counted = metrics.tally(metrics.sort_into_cuts(similarity, same))
    assert metrics.tar_at_nearest_far(counted, far) == tpr[nearest]
    by_sort = metrics.tally_sorted(similarity, same)
    np.testing.assert_array_equal(by_sort.of_same, counted.of_same)
    np.testing.assert_array_equal(by_sort.of_different, counted.of_different)


def test_people_are_those_whom_same_pairs_connect() -> None:
    left, right = np.array([0, 1, 3, 5, 2]), np.array([1, 3, 5, 6, 4])
    same = np.array([True, True, True, False, True])
    assert people_of_pairs(left, right, same, 7).tolist() == [0, 0, 1, 0, 1, 0, 2]


def test_templates_are_found_by_table_or_by_search(monkeypatch: pytest.MonkeyPatch) -> None:
    templates = Templates(np.array([3, 7, 90], np.int32), np.eye(3))
    for largest in (1 << 26, 5):
        monkeypatch.setattr("manyface.evaluate.templates._TABLE", largest)
        assert templates.rows_of(np.array([90, 3, 7, 7], np.int32), "x").tolist() == [2, 0, 1, 1]
        for absent in (-1, 0, 5, 89, 91, 1 << 30):
            with pytest.raises(DataError, match=f"first is {absent}"):
                templates.rows_of(np.array([3, absent], np.int32), "x")


def brute_1n(made: Set, pooled: np.ndarray) -> dict[str, float]:
    """`ijb_1n.py` and `ijb_evals.py`, with argsort and loops."""
    vectors = dict(zip(made.ids, pooled, strict=True))
    probes = np.array([vectors[t] for t in made.probes.templates])
    sides = [np.array([vectors[t] for t in side.templates]) for side in made.galleries]
    ids = [side.subjects for side in made.galleries]
    found: dict[str, float] = {}
    similarity, subjects = probes @ np.concatenate(sides).T, np.concatenate(ids)
    mate = np.array([np.flatnonzero(subjects == s)[0] for s in made.probes.subjects])
    order = np.argsort(-similarity, axis=1)
    for rank in (1, 5, 10):
        found[f"rank-{rank} (pooled)"] = np.mean(
            [m in row[:rank] for m, row in zip(mate, order, strict=True)]
        )
    rows = np.arange(len(mate))
    positive = similarity[rows, mate].copy()
    similarity[rows, mate] = -2
    negative = np.sort(similarity[similarity > -2])[::-1]
    for fpir in (0.1, 0.01):
        limit = negative[ceil(len(mate) * fpir) - 1]
        found[f"tpir@fpir={fpir:g} (pooled, ijb_1n.py)"] = np.mean(positive > limit)
    counts = dict.fromkeys((1, 5, 10), 0)
    theirs: dict[float, list[float]] = {0.1: [], 0.01: []}
    ours: dict[float, list[float]] = {0.1: [], 0.01: []}
    for side, people in zip(sides, ids, strict=True):
        similarity = probes @ side.T
        mated = np.isin(made.probes.subjects, people)
        is_mate = made.probes.subjects[mated][:, None] == people
        order = np.argsort(-similarity[mated], axis=1)
        for rank in counts:
            counts[rank] += sum(
                hit[row[:rank]].any() for hit, row in zip(is_mate, order, strict=True)
            )
        positive = similarity[mated][is_mate]
        negative = np.where(is_mate, -2, similarity[mated]).max(axis=1)
        others = np.sort(similarity[~mated].max(axis=1))[::-1]
        for fpir in theirs:
            limit = others[max(int(len(others) * fpir) - 1, 0)]
            theirs[fpir].append(np.mean((positive > negative) & (positive > limit)))
            ours[fpir].append(
                max(
                    np.mean((positive > negative) & (positive >= t))
                    for t in np.append(similarity.ravel(), 2)
                    if np.mean(others >= t) <= fpir
                )
            )
    for rank, count in counts.items():
        found[f"rank-{rank} (apart)"] = count / len(mate)
    found["tpir@fpir=0.1 (apart, ijb_evals.py)"] = np.mean(theirs[0.1])
    found["tpir@fpir=0.1 (apart)"] = np.mean(ours[0.1])
    return found


@pytest.mark.parametrize("seed", range(4))
def test_searches_equal_the_scripts_of_the_field(seed: int) -> None:
    made = Set(seed)
    result = identify_templates(
        made.pooled(), made.galleries, made.probes, name="x", variant="N1D1F1", resamples=20
    )
    expected = brute_1n(made, made.pooled_by_loops("N1D1F1"))
    assert {score.name: score.value for score in result.scores} == pytest.approx(expected, abs=1e-9)
    assert any("tpir@fpir=0.01 (apart) is not given" in note for note in result.notes)
    for score in result.scores:
        assert score.low is None or score.low <= score.value <= score.high


def test_files_are_read_as_they_were_written(made: Set, tmp_path: Path) -> None:
    folder = made.write(tmp_path)
    faces = read_faces(folder)
    assert faces.names[:2] == ["1.jpg", "2.jpg"]
    np.testing.assert_array_equal(faces.templates, made.templates)
    np.testing.assert_array_equal(faces.media, made.media)
    np.testing.assert_allclose(faces.detector_scores, made.detector, rtol=1e-6)
    np.testing.assert_array_equal(faces.points[3, 4], [8.5, 9.5])
    pairs = read_template_pairs(folder / "meta")
    for name in ("left", "right", "same"):
        np.testing.assert_array_equal(getattr(pairs, name), getattr(made.pairs, name))
    galleries, probes = read_galleries(folder)
    for found, expected in zip([*galleries, probes], [*made.galleries, made.probes], strict=True):
        np.testing.assert_array_equal(found.templates, expected.templates)
        np.testing.assert_array_equal(found.subjects, expected.subjects)


def test_1n_may_be_absent_but_not_half_there(made: Set, tmp_path: Path) -> None:
    folder = made.write(tmp_path)
    (folder / "meta/ijbc_1N_gallery_G2.csv").unlink()
    with pytest.raises(DataError, match=r"ijbc_1N_gallery_G2\.csv missing"):
        read_galleries(folder)
    for path in (folder / "meta").glob("*1N*"):
        path.unlink()
    assert read_galleries(folder) is None


DAMAGE = {
    "a cut line": ("template_pair_label", lambda text: text[:-3], "line 1620: expected two templ"),
    "a word": (
        "template_pair_label",
        lambda t: "x" + t,
        "line 1: expected two templates and 0 or 1",
    ),
    "another label": ("template_pair_label", lambda t: t[:-2] + "2\n", "line 1620: expected two"),
    "four columns": ("template_pair_label", lambda t: "1 2 0 4\n5 6\n" + t, "line 1: expected two"),
    "no pair": ("template_pair_label", lambda t: "", "is empty"),
    "a number more": (
        "name_5pts_score",
        lambda t: "1.jpg 2" + t[5:],
        "line 1: expected a name and",
    ),
    "not a number": ("name_5pts_score", lambda t: t.replace("0.5", "nan", 1), "line 1: a landmark"),
    "a face less": ("name_5pts_score", lambda t: t[t.index("\n") + 1 :], "names 700 faces"),
    "another photo": ("face_tid_mid", lambda t: "x" + t, "line 1: .*names 'x1.jpg'"),
    "a word for a number": ("face_tid_mid", lambda t: "1.jpg a 3\n" + t, "line 1: expected a name"),
    "a fraction": ("face_tid_mid", lambda t: "1.jpg 1.5 3\n" + t, "line 1: expected a name"),
    "no face": ("face_tid_mid", lambda t: "", "is empty"),
    "no subject": ("1N_probe_mixed", lambda t: t + "17\n", "expected 'template,subject"),
    "two subjects": ("1N_gallery_G1", lambda t: t + t.split("\n")[1].split(",")[0] + ",7\n", "two"),
    "nothing": ("1N_gallery_G2", lambda t: "", "lists no template"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_said_with_their_line(made: Set, tmp_path: Path, name: str) -> None:
    which, change, message = DAMAGE[name]
    folder = made.write(tmp_path)
    (path,) = (folder / "meta").glob(f"*{which}*")
    path.write_text(change(path.read_text()))
    read = {"1": read_galleries, "t": read_template_pairs}.get(which[0], read_faces)
    with pytest.raises(DataError, match=message):
        read(folder)


def test_missing_files_are_said(made: Set, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no IJB set in"):
        read_faces(tmp_path)
    folder = made.write(tmp_path)
    (folder / "meta/ijbc_template_pair_label.txt").unlink()
    with pytest.raises(DataError, match="cannot read"):
        read_template_pairs(folder)
    (folder / "meta/ijbb_face_tid_mid.txt").write_text("")
    with pytest.raises(DataError, match="ijbb and ijbc"):
        read_faces(folder)


def test_pairs_listed_twice_are_counted_and_said(made: Set) -> None:
    def doubled(flip: bool) -> TemplatePairs:
        same = made.pairs.same[:3] ^ flip
        return TemplatePairs(
            np.append(made.pairs.left, made.pairs.right[:3]),  # the other way round
            np.append(made.pairs.right, made.pairs.left[:3]),
            np.append(made.pairs.same, same),
        )

    assert "3 pairs are listed more than once" in check_pairs(doubled(False))[0]
    with pytest.raises(DataError, match="as one person and as two"):
        check_pairs(doubled(True))
    assert check_pairs(made.pairs) == []


def test_other_sizes_than_the_published_are_said(made: Set) -> None:
    result = verify_templates(made.pooled(), made.pairs, name="ijbc", resamples=0)
    assert "ijbc as published has 23124 and 15658489" in result.notes[0]


def test_pairs_that_cannot_be_judged_are_said(made: Set) -> None:
    pooled, pairs = made.pooled(), made.pairs
    absent = TemplatePairs(np.append(pairs.left[:-1], np.int32(4999)), pairs.right, pairs.same)
    with pytest.raises(DataError, match=r"1 templates of the pairs have no face .* 4999"):
        verify_templates(pooled, absent, name="x")
    of_one = TemplatePairs(pairs.left, pairs.right, np.zeros(len(pairs), bool))
    with pytest.raises(DataError, match="of the same person and of different people"):
        verify_templates(pooled, of_one, name="x")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mirrored": None}, "needs the features of the mirror images"),
        ({"detector_scores": np.ones(3)}, "needs a detector score for each of 700 faces, got 3"),
        ({"media": np.zeros(5, np.int32)}, "a feature, a template and a media for each face"),
        ({"features": np.full((700, DIM), np.nan)}, "feature of face .* is not finite"),
        ({"features": np.zeros((700, DIM)), "variant": Variant(flip=False)}, "adds up to length 0"),
    ],
)
def test_features_that_cannot_be_pooled_are_said(made: Set, change: dict, message: str) -> None:
    given = {
        "features": made.features,
        "templates": made.templates,
        "media": made.media,
        "mirrored": made.mirrored,
        "detector_scores": made.detector,
    }
    with pytest.raises(ManyfaceError, match=message):
        pool_templates(**(given | change))


@pytest.mark.parametrize("name", ["N1D1", "D1N1F1", "N1D1F2", "", "N1D1F11"])
def test_unknown_variants_are_said(name: str) -> None:
    with pytest.raises(DataError, match="a variant like N1D1F1"):
        Variant.of(name)


def test_subjects_that_cannot_be_searched_are_said(made: Set) -> None:
    one, other = made.galleries

    def refused(galleries: list[Subjects], probes: Subjects, message: str) -> None:
        with pytest.raises(DataError, match=message):
            identify_templates(made.pooled(), galleries, probes, name="x")

    refused([one, one], made.probes, "in both galleries")
    refused([one], made.probes, "subjects of the probes are in no gallery")
    refused([one, Subjects(other.templates, other.subjects * 0 + 7)], made.probes, "in one gallery")
    refused([one, Subjects(other.templates + 1, other.subjects)], made.probes, "have no face")


def test_no_figure_below_what_the_impostors_can_tell(made: Set) -> None:
    """The ROC point nearest to so small a FAR would be the one of FAR 0."""
    num_impostors = int(np.count_nonzero(~made.pairs.same))
    fars = (2 / num_impostors, 0.4 / num_impostors)
    result = verify_templates(made.pooled(), made.pairs, name="x", fars=fars, resamples=0)
    near, far = (
        [s.name for s in result.scores if s.name.startswith(f"tar@far={f:g}")] for f in fars
    )
    assert len(near) == 2
    assert far == []
    assert any(f"{fars[1]:g} is not given" in note for note in result.notes)
