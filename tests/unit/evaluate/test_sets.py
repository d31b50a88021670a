"""Sets by the names that users give them: read, refused, judged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manyface.base.errors import ConfigError, DataError
from manyface.data.bin_file import VerificationSet, write_bin
from manyface.evaluate.sets.base import evaluate_set
from manyface.evaluate.sets.naming import SetName, parse_set
from manyface.evaluate.sets.opening import SetOptions, open_set
from manyface.evaluate.sets.path_list import read_path_pairs

from .conftest import embed_pixels

SIDE = 8
OPTIONS = SetOptions(image_size=SIDE, warn=lambda text: None)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """12 people of four photos: each a pattern of its own, with noise."""
    rng = np.random.default_rng(0)
    for person in range(12):
        look = rng.integers(60, 195, (SIDE, SIDE, 3))
        folder = tmp_path / "faces" / f"p{person}"
        folder.mkdir(parents=True)
        for photo in range(1, 5):
            pixels = np.clip(look + rng.integers(-250, 250, look.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{photo}.png")
    return tmp_path / "faces"


def long_features(images: torch.Tensor) -> torch.Tensor:
    return 3 * embed_pixels(images)


class Got:
    """A judgement whose first result has a short name."""

    def __init__(self, found):
        self.mistakes, self.results = found.mistakes, list(found.results)
        self.result = self.results[0]


def judge(name: SetName, options: SetOptions = OPTIONS):
    return Got(evaluate_set(open_set(name, options), long_features, batch_size=7))


def write_lists(folder: Path, count: int = 40) -> tuple[Path, Path]:
    """The same pairs as paths, in folds of ten, and as a .bin."""
    rng = np.random.default_rng(1)
    lines, images, same, seen = [], [], [], set()
    while len(lines) < count:
        one, other = rng.integers(12, size=2)
        if len(lines) % 2:
            other = one
        left, right = (f"p{one}/{rng.integers(1, 5)}.png", f"p{other}/{rng.integers(1, 5)}.png")
        is_same, key = one == other, frozenset((left, right))
        if is_same == (len(lines) % 2) and left != right and key not in seen:
            seen.add(key)
            lines.append(f"{left}\t{right}\t{int(is_same)}\t{len(lines) // (count // 10)}\n")
            images += [(folder / left).read_bytes(), (folder / right).read_bytes()]
            same.append(is_same)
    (folder / "pairs.tsv").write_text("# of mine\n" + "".join(lines))
    write_bin(folder / "set.bin", VerificationSet(images, np.array(same)))
    return folder / "pairs.tsv", folder / "set.bin"


def test_pairs_by_path_and_the_same_in_a_bin_have_one_score(faces):
    listed, packed = write_lists(faces)
    found = judge(SetName("pairs", listed))
    same = judge(parse_set(str(packed)))
    assert found.result.name == "pairs"
    for score in ("accuracy", "accuracy_std", "auc", "tar@far=0.1"):
        assert found.result.value(score) == same.result.value(score) is not None
    assert same.result.value("accuracy (insightface)") is not None
    assert found.result.value("accuracy (insightface)") is None
    assert 0.5 < found.result.value("accuracy") < 1
    assert found.mistakes is not None
    assert found.mistakes.left.shape == (len(found.mistakes.same), SIDE, SIDE, 3)
    (curve,) = found.result.curves
    assert (np.diff(curve.far) >= 0).all()
    assert (np.diff(curve.tar) >= 0).all()
    assert curve.far[-1] == curve.tar[-1] == 1


def test_an_lfw_list_takes_its_photos_from_elsewhere(faces, tmp_path):
    names = [f"p{i}" for i in range(12)]
    same = [f"{name}\t1\t2" for name in names]
    different = [f"{a}\t1\t{b}\t2" for a, b in zip(names, names[1:] + names[:1], strict=True)]
    (tmp_path / "list.txt").write_text("\n".join(["12", *same, *different]) + "\n")
    options = SetOptions(image_size=SIDE, warn=lambda text: None, images=faces)
    assert judge(SetName("pairs", tmp_path / "list.txt"), options).result.value("auc") > 0.6


def test_pairs_by_quality_and_by_subgroup(faces, tmp_path):
    names = [f"p{i}" for i in range(12)]
    same = [f"{name}\t{a}\t{b}" for name in names for a, b in ((1, 2), (3, 4), (1, 3))]
    different = [
        f"{names[i]}\t{a}\t{names[(i + step) % 12]}\t2"
        for i in range(12)
        for a, step in ((1, 2), (3, 3), (1, 4))
    ]
    (tmp_path / "list.txt").write_text("\n".join(["36", *same, *different]) + "\n")
    groups = tmp_path / "groups.tsv"
    groups.write_text("".join(f"p{i}\t{'even' if i % 2 == 0 else 'odd'}\n" for i in range(12)))
    options = SetOptions(
        image_size=SIDE,
        warn=lambda text: None,
        images=faces,
        subgroups=groups,
        by_quality=True,
    )
    results = judge(SetName("pairs", tmp_path / "list.txt"), options).results
    assert [each.name for each in results] == ["list", "list by quality", "list by subgroup"]
    assert any("even" in score.name for score in results[2].scores)
    assert any("norm" in score.name for score in results[1].scores)


def test_everyone_by_subgroup(faces):
    groups = faces.parent / "groups.tsv"
    groups.write_text("".join(f"p{i}\t{'even' if i % 2 == 0 else 'odd'}\n" for i in range(10)))
    options = SetOptions(
        image_size=SIDE, warn=lambda text: None, fars=[0.1, 0.01], subgroups=groups
    )
    found = judge(parse_set(f"all={faces}"), options).result
    assert found.value("tar@far=0.1") is not None
    assert {curve.name for curve in found.curves} == {"", "even", "odd"}
    shown = judge(parse_set(f"all={faces}"), options).mistakes
    assert shown.left.shape == (12, SIDE, SIDE, 3)
    cosines = (
        long_features(torch.from_numpy(shown.left))
        / 3
        * long_features(torch.from_numpy(shown.right))
        / 3
    ).sum(1)
    np.testing.assert_allclose(shown.similarity, cosines, atol=1e-6)
    assert (np.diff(shown.similarity) <= 0).all()
    groups.write_text("nobody\todd\n")
    with pytest.raises(DataError, match="1 of 1 people are not in"):
        open_set(parse_set(f"all={faces}"), options)
    groups.write_text("nobody\todd\np1\todd\n")  # a list for several sets
    said = []
    open_set(parse_set(f"all={faces}"), replace(options, warn=said.append))
    assert len(said) == 1
    assert "1 of 2 people are not in" in said[0]
    groups.write_text("p1 odd\n")
    with pytest.raises(DataError, match="line 1: expected person, TAB, subgroup"):
        open_set(parse_set(f"all={faces}"), options)


def test_a_bin_of_one_kind_has_insightfaces_figure_only(faces):
    _, packed = write_lists(faces)
    images = [(faces / f"p{i}" / f"{k}.png").read_bytes() for i in range(12) for k in (1, 2)]
    write_bin(packed, VerificationSet(images, np.full(12, True)))
    found = judge(parse_set(str(packed))).result
    assert found.value("accuracy (insightface)") is not None
    assert found.value("accuracy") is None
    assert any("of one person" in note for note in found.notes)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a.png\tb.png\n", "line 1: expected path, path, 1"),
        ("a.png b.png 2\n", "line 1: expected path, path, 1"),
        ("a.png,a.png,1\n", "paired with itself"),
        ("a.png b.png 1\n\nb.png a.png 1\n", "line 3: the pair of line 1 again"),
        ("a.png b.png 1 0\na.png c.png 0\n", "a fold in 1 of 2 lines"),
        ("# nothing\n", "has no pairs"),
    ],
)
def test_lists_that_cannot_be_meant(text, message):
    with pytest.raises(DataError, match=message):
        read_path_pairs(text, Path("list.tsv"))


def test_absent_images_are_said_before_the_work(faces):
    (faces / "pairs.tsv").write_text("p1/1.png\tp1/9.png\t1\np1/1.png\tp2/1.png\t0\n")
    with pytest.raises(DataError, match=r"1 of 3 images are not there.*p1/9.png; --images"):
        open_set(parse_set(f"pairs={faces / 'pairs.tsv'}"), OPTIONS)


@pytest.mark.parametrize(
    "text, message",
    [
        ("nowhere.bin", "no such set"),
        ("pairs=nowhere", "no such set"),
        ("lfw=nowhere", "no kind 'lfw' of sets"),
        (".", "say what kind of set it is"),
    ],
)
def test_names_that_are_no_sets(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_set(text)


def test_a_gallery_with_strangers_and_distractors(faces, tmp_path):
    root = tmp_path / "search"
    for person in range(12):
        for photo in range(1, 5):
            part = "gallery" if photo == 1 and person < 8 else "probe"
            part = "distractors" if person == 11 else part
            target = root / part / f"p{person}"
            target.mkdir(parents=True, exist_ok=True)
            (faces / f"p{person}" / f"{photo}.png").rename(target / f"{photo}.png")
    found = judge(parse_set(f"gallery={root}")).result
    assert "33 probes, 12 in the gallery" in found.protocol or "in the gallery" in found.protocol
    assert 0 < found.value("rank-1") <= found.value("rank-5") <= 1
    assert found.value("tpir@fpir=0.1") is not None
    assert "3 of 11 people of the probes are not in the gallery" in found.notes
    (root / "probe/p8").rename(root / "probe/P 1")
    notes = judge(parse_set(f"gallery={root}")).result.notes
    assert not any("another spelling" in note for note in notes)
    (root / "probe/P 1").rename(root / "probe/P1")
    notes = judge(parse_set(f"gallery={root}")).result.notes
    assert any("1 of these are there in another spelling (as 'P1' and 'p1')" in n for n in notes)
    (root / "gallery").rename(root / "elsewhere")
    with pytest.raises(DataError, match="has no gallery: expected"):
        open_set(parse_set(f"gallery={root}"), OPTIONS)


def test_people_of_probes_who_are_in_no_gallery(faces, tmp_path):
    root = tmp_path / "search"
    for part, person in (("probe", "p1"), ("gallery", "p2")):
        (root / part).mkdir(parents=True)
        (faces / person).rename(root / part / person)
    with pytest.raises(DataError, match="none of the 1 people of the probes is in the gallery"):
        open_set(parse_set(f"gallery={root}"), OPTIONS)


def write_ijb(folder: Path, *, people: int = 6) -> Path:
    """Templates of three photos, two of one media; two templates for each person."""
    rng = np.random.default_rng(2)
    meta, photos = folder / "meta", folder / "loose_crop"
    for each in (meta, photos):
        each.mkdir(parents=True)
    media, points, template = [], [], 0
    place = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2"
    for _ in range(people):
        look = rng.integers(40, 215, (7, 7, 3)).repeat(16, axis=0).repeat(16, axis=1)
        for _ in range(2):
            for photo in range(3):
                name = f"{len(media) + 1}.png"
                pixels = np.clip(look + rng.integers(-90, 90, look.shape), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(photos / name)
                media.append(f"{name} {template + 1} {template * 10 + photo // 2}\n")
                points.append(f"{name} {place} {0.5 + photo / 10}\n")
            template += 1
    (meta / "ijbc_face_tid_mid.txt").write_text("".join(media))
    (meta / "ijbc_name_5pts_score.txt").write_text("".join(points))
    pairs = [
        f"{2 * a + 1} {2 * b + 2} {int(a == b)}\n" for a in range(people) for b in range(people)
    ]
    (meta / "ijbc_template_pair_label.txt").write_text("".join(pairs))
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n"
    for name, start in (("G1", 0), ("G2", 1)):
        lines = [f"{2 * a + 1},{a},x.png\n" for a in range(start, people, 2)]
        (meta / f"ijbc_1N_gallery_{name}.csv").write_text(head + "".join(lines))
    lines = [f"{2 * a + 2},{a},x.png\n" for a in range(people)]
    (meta / "ijbc_1N_probe_mixed.csv").write_text(head + "".join(lines))
    return folder


def test_ijb_from_photos_to_scores(tmp_path):
    root = write_ijb(tmp_path / "ijb")
    options = SetOptions(image_size=112, warn=lambda text: None)
    names = ["ijbc 1:1 N1D1F1", "ijbc 1:N N1D1F1", "ijbc 1:1 N0D1F1", "ijbc 1:N N0D1F1"]
    results = judge(parse_set(f"ijbc={root}"), options).results
    assert [each.name for each in results] == names
    assert results[0].value("tar@far=0.1") is not None
    assert results[2].value("tar@far=0.1 (nearest ROC point)") is not None
    assert results[1].value("rank-1 (pooled)") is not None
    assert any("15658489" in note or "15,658,489" in note for note in results[0].notes)
    (root / "loose_crop" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: No such file"):
        open_set(parse_set(f"ijbc={root}"), options)
    write_ijb(tmp_path / "other")
    with pytest.raises(DataError, match="holds ijbc, and ijbb was said"):
        open_set(parse_set(f"ijbb={tmp_path / 'other'}"), options)
    with pytest.raises(DataError, match="multiple of 112 or 128"):
        open_set(parse_set(f"ijbc={tmp_path / 'other'}"), OPTIONS)


def test_subgroups_may_spell_names_in_another_unicode_form(faces):
    (faces / "p1").rename(faces / "Jos\u00e9")
    groups = faces.parent / "groups.tsv"
    groups.write_text("Jose\u0301\teven\np2\teven\n", encoding="utf-8")
    options = SetOptions(image_size=SIDE, warn=lambda text: None, fars=[0.1], subgroups=groups)
    found = judge(parse_set(f"all={faces}"), options).result
    assert {curve.name for curve in found.curves} == {"", "even"}


def test_a_short_list_has_fewer_folds(faces):
    lines = [f"p{i}/1.png\tp{i}/2.png\t1\n" for i in range(4)]
    lines += [f"p{i}/1.png\tp{i + 1}/2.png\t0\n" for i in range(5)]
    (faces / "pairs.tsv").write_text("".join(lines))
    found = judge(SetName("pairs", faces / "pairs.tsv")).result
    assert "mean over 4 folds" in found.scores[0].protocol
    listed = ["3", *(f"p{i}\t1\t2" for i in range(3)), *(f"p{i}\t1\tp{i + 4}\t2" for i in range(3))]
    (faces / "lfw.txt").write_text("\n".join(listed) + "\n")
    found = judge(SetName("pairs", faces / "lfw.txt")).result
    assert "mean over 3 folds" in found.scores[0].protocol


def test_a_list_of_paths_has_no_subgroups(faces):
    listed, _ = write_lists(faces)
    (faces / "groups.tsv").write_text("p1\tnorth\n")
    options = SetOptions(image_size=SIDE, warn=lambda text: None, subgroups=faces / "groups.tsv")
    with pytest.raises(DataError, match="names images, not people, so --subgroups"):
        open_set(SetName("pairs", listed), options)


def test_lists_of_ijb_are_read_before_the_photos_are_embedded(tmp_path):
    root = write_ijb(tmp_path / "ijb")
    options = SetOptions(image_size=112, warn=lambda text: None, fars=[0.2])
    result = judge(parse_set(f"ijbc={root}"), options).result
    assert [each.name for each in result.scores][:1] == ["tar@far=0.2"]
    (root / "meta/ijbc_template_pair_label.txt").write_text("1 2 1\n1 x 0\n")
    with pytest.raises(DataError, match="line 2: expected two templates"):
        open_set(parse_set(f"ijbc={root}"), options)


@pytest.mark.parametrize(
    "word, name", [("all=.", "here"), ("ijbc=..", "set"), ("all=here", "here")]
)
def test_a_set_has_the_name_of_its_folder(tmp_path, monkeypatch, word, name):
    (tmp_path / "set/here/here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "set/here")
    assert parse_set(word).name == name
