"""Whole batches decoded by threads; broken images replaced; small sets cached."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from manyface.base.errors import DataError
from manyface.config import parse_config
from manyface.data import DecodedImages, open_records, read_pairs, select_records
from manyface.data.records.files import read_whole
from manyface.train.build_pairs import build_pairs


def source_of(path, **options) -> DecodedImages:
    defaults = {"image_size": 24, "threads": 2, "cache": 0}
    return DecodedImages(open_records(path), **(defaults | options))


def every(source) -> np.ndarray:
    return np.arange(len(source), dtype=np.int64)


def test_shapes_labels_and_names(write_faces):
    source = source_of(write_faces({"Ann": 2, "Bob": 3}))
    images = source.load(np.array([4, 0, 4]))
    assert images.dtype == torch.uint8
    assert images.shape == (3, 24, 24, 3)
    assert torch.equal(images[0], images[2])
    assert source.labels(np.array([4, 0, 1, 2])).tolist() == [1, 0, 0, 1]
    assert source.labels(every(source)).dtype == np.int64
    assert (source.num_identities, list(source.identity_names)) == (2, ["Ann", "Bob"])
    assert source.name == "faces"
    assert source.load(np.array([], dtype=np.int64)).shape == (0, 24, 24, 3)


def test_pixels_are_those_of_pillow(write_faces):
    source = source_of(write_faces({"Ann": 3}))
    for index, image in enumerate(source.load(every(source)).numpy()):
        reference = np.asarray(Image.open(source.records.describe(index))).astype(int)
        assert np.abs(image - reference).mean() < 1


def test_number_of_threads_and_batch_mates_do_not_matter(write_faces):
    root = write_faces({"Ann": 5, "Bob": 4})
    (root / "Bob" / "0002.jpg").write_bytes(b"broken")
    one, many = (source_of(root, threads=n, image_size=16) for n in (1, 4))
    together = one.load(every(one))
    assert torch.equal(together, many.load(every(many)))
    for index in range(len(one)):
        assert torch.equal(together[index], one.load(np.array([index]))[0])


def test_resize_keeps_the_picture(write_faces):
    root = write_faces({"Ann": 2}, size=48)
    Image.new("RGB", (48, 48), (10, 200, 30)).save(root / "Ann" / "9.png")
    Image.new("RGB", (10, 40), (10, 200, 30)).save(root / "Ann" / "tall.png")
    images = source_of(root).load(np.arange(4)).numpy().astype(int)
    for image in images[2:]:
        assert np.abs(image - [10, 200, 30]).max() <= 1
    picture = Image.open(root / "Ann" / "0001.jpg")
    small = np.asarray(picture.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(images[0] - small).mean() < 2


def test_a_broken_image_is_replaced_by_the_next_of_the_person_and_named_once(write_faces):
    root = write_faces({"Ann": 3, "Bob": 3})
    (root / "Ann" / "0003.jpg").write_bytes(b"no image")
    warnings: list[str] = []
    source = source_of(root, max_bad_share=0.5, warn=warnings.append)
    for _ in range(3):
        images = source.load(every(source))
        assert torch.equal(images[2], images[0])
    assert len(source.bad_images) == len(warnings) == 1
    assert "Ann/0003.jpg" in warnings[0]


def test_replacements_skip_other_broken_ones(write_faces):
    root = write_faces({"Ann": 4, "Bob": 4})
    (root / "Ann" / "0002.jpg").write_bytes(b"")
    (root / "Ann" / "0003.jpg").unlink()
    (root / "Ann" / "0003.jpg").symlink_to("/nowhere")
    source = source_of(root, warn=lambda _: None)
    images = source.load(np.array([1, 3, 2]))
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[2], images[1])
    reasons = " ".join(source.bad_images.reasons.values())
    assert "the file is empty" in reasons
    assert "No such file" in reasons


def test_a_person_with_broken_images_only_is_grey(write_faces):
    root = write_faces({"Ann": 1, "Bob": 9})
    (root / "Ann" / "0001.jpg").write_bytes(b"no image")
    warnings: list[str] = []
    source = source_of(root, warn=warnings.append)
    assert (source.load(np.array([0])) == 127).all()
    assert "shown as plain grey" in warnings[0]
    assert "replaced" not in warnings[0]


def test_nothing_is_substituted_in_images_of_pairs(write_faces):
    root = write_faces({"Ann": 2, "Bob": 9})
    (root / "Ann" / "0002.jpg").write_bytes(b"no image")
    source = source_of(root, substitute=False, max_bad_share=1, cache=1 << 20)
    for _ in range(2):
        with pytest.raises(DataError, match=r"Ann/0002.jpg: .* take its pairs out of the list"):
            source.load(np.array([0, 1]))
    assert source.load(np.array([0])).shape == (1, 24, 24, 3)


def test_a_recipe_s_pairs_are_not_substituted(write_faces):
    root = write_faces({"Ann": 2, "Bob": 9})
    (root / "Ann" / "0002.jpg").write_bytes(b"no image")
    (root / "pairs.txt").write_text("2\nAnn 1 2\nBob 1 2\nAnn 1 Bob 1\nAnn 2 Bob 2\n")
    options = [f"data.path={root}", "evaluation.pairs=pairs.txt", "evaluation.folds=2"]
    pairs = build_pairs(parse_config("", options), warn=lambda _: None)
    with pytest.raises(DataError, match=r"Ann/0002.jpg: .* replace the file"):
        pairs.source.load(pairs.right)


def test_an_unreadable_file_counts_as_broken(write_faces, monkeypatch):
    source = source_of(write_faces({"Ann": 9}), warn=lambda _: None)

    def refuse(path, *, limit):
        if Path(path).name == "0001.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return read_whole(path, limit=limit)

    monkeypatch.setattr("manyface.data.records.folder.read_whole", refuse)
    images = source.load(np.array([0, 1]))
    assert torch.equal(images[0], images[1])
    assert "Permission denied" in source.bad_images.reasons[0]


def test_too_many_broken_images_stop_with_numbers_and_first_cases(write_faces):
    root = write_faces({"Ann": 6, "Bob": 6})
    for number in range(1, 5):
        (root / "Bob" / f"{number:04d}.jpg").write_bytes(b"no image")
    source = source_of(root, warn=lambda _: None)
    with pytest.raises(DataError, match=r"4 of 12 images .* max_bad_share = 0.01 .*Bob/0001.jpg"):
        source.load(every(source))
    strict = source_of(root, max_bad_share=0, warn=lambda _: None)
    with pytest.raises(DataError, match="1 of 12"):
        strict.load(every(strict))
    generous = source_of(root, max_bad_share=0.5, warn=lambda _: None)
    assert len(generous.load(every(generous))) == 12


def test_a_large_set_of_rubbish_stops_early(write_faces):
    root = write_faces({"Ann": 1})
    for number in range(300):
        (root / "Ann" / f"x{number}.jpg").write_bytes(b"no image")
    source = source_of(root, max_bad_share=0.5, threads=1, warn=lambda _: None)
    with pytest.raises(DataError, match="of 301 images"):
        source.load(np.arange(1, 11))
    assert len(source.bad_images) == 26  # 10, and three times half of the 10 tried, and one more


def test_only_the_first_broken_images_are_named(write_faces):
    root = write_faces({"Ann": 100})
    for number in range(1, 21):
        (root / "Ann" / f"{number:04d}.jpg").write_bytes(b"no image")
    warnings: list[str] = []
    source = source_of(root, max_bad_share=0.5, warn=warnings.append)
    source.load(every(source)[::-1])
    assert len(warnings) == 11
    assert "they are counted" in warnings[-1]
    assert len(source.bad_images) == 20


def test_the_cache_reads_each_file_once_and_changes_nothing(write_faces, monkeypatch):
    root = write_faces({"Ann": 4, "Bob": 4})
    plain, cached = source_of(root, image_size=16), source_of(root, image_size=16, cache=8 * 768)
    reads: list[int] = []
    real_read = cached.records.read
    monkeypatch.setattr(cached.records, "read", lambda i: (reads.append(i), real_read(i))[1])
    for indices in (np.array([3, 3, 1]), every(cached), every(cached)[::-1]):
        assert torch.equal(cached.load(indices), plain.load(indices))
    assert sorted(reads) == list(range(8))
    too_small = source_of(root, image_size=16, cache=8 * 768 - 1)
    assert too_small._cache is None


def test_half_of_the_cores_that_the_process_may_use_decode(write_faces, monkeypatch):
    root = write_faces({"Ann": 1})
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert source_of(root, threads=0).threads == 3
    monkeypatch.delattr("os.sched_getaffinity")
    assert source_of(root, threads=0).threads == 32


def test_what_the_caller_does_to_a_batch_does_not_reach_the_cache(write_faces):
    source = source_of(write_faces({"Ann": 2}), cache=1 << 20)
    before = source.load(every(source)).clone()
    source.load(every(source)).zero_()
    assert torch.equal(source.load(every(source)), before)


def test_records_out_of_range(write_faces):
    source = source_of(write_faces({"Ann": 2}))
    with pytest.raises(IndexError, match="records are 0 to 1, got 0 to 2"):
        source.load(np.array([0, 2]))
    with pytest.raises(ValueError, match="image_size"):
        source_of(write_faces({"Ann": 1}, folder="b"), image_size=0)


def test_images_by_name_and_number(write_faces):
    source = source_of(write_faces({"Ann": 2, "Bob": 3}))
    assert source.index_of("Bob", 2) == 3
    with pytest.raises(DataError, match="no person 'Eve'"):
        source.index_of("Eve", 1)
    with pytest.raises(DataError, match=r"'Ann' has no image number 3 .* only 2 images"):
        source.index_of("Ann", 3)


def test_real_faces(lfw_tar):
    people = select_records(open_records(lfw_tar), min_images=20)
    source = DecodedImages(people, image_size=64)
    assert source.num_identities == 62
    images = source.load(np.arange(0, len(source), 50)).float()
    assert 60 < images.mean() < 180
    assert images.std() > 30


def test_real_pairs_are_found(lfw_tar):
    source = DecodedImages(open_records(lfw_tar), image_size=112, cache=0)
    pairs = read_pairs(source.records.read_text("lfw-lists/pairsDevTest.txt"))
    left = source.labels(np.array([source.index_of(*image) for image in pairs.left]))
    right = source.labels(np.array([source.index_of(*image) for image in pairs.right]))
    np.testing.assert_array_equal(left == right, pairs.same)


def test_grey_bitmaps_of_another_shape(orl_tar):
    source = DecodedImages(open_records(orl_tar), image_size=64)
    images = source.load(np.arange(20))
    assert torch.equal(images[..., 0], images[..., 2])
    assert len(source.bad_images) == 0
