"""What must hold for every length, seed, batch size and start; tar headers against tarfile."""

import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise import Noise

from manyface.data import Augmentation, EpochSampler, Loader, augment
from manyface.data.records.files import PlainFile
from manyface.data.records.headers import Member, iterate_members

SEEDS = st.integers(0, 2**63 - 1)
EVERYTHING = Augmentation(
    flip=0.5, shift=2, rotate_degrees=15, scale=0.2, brightness=0.3, contrast=0.3, saturation=0.3,
    grey=0.3, blur=0.4, low_resolution=0.4, erase=0.4,
)  # fmt: skip
WITHOUT_WARP = Augmentation(
    flip=0.5, shift=2, brightness=0.3, contrast=0.3, saturation=0.3, grey=0.3, blur=0.4,
    low_resolution=0.4, erase=0.4,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 2000), seed=SEEDS, epoch=st.integers(0, 10**9))
def test_each_epoch_is_a_permutation(length, seed, epoch):
    order = EpochSampler(length, seed=seed).indices(np.arange(length) + epoch * length)
    np.testing.assert_array_equal(np.sort(order), np.arange(length))


@settings(max_examples=50, deadline=None)
@given(
    length=st.integers(1, 300), seed=SEEDS, positions=st.lists(st.integers(0, 10**6), max_size=50)
)
def test_any_question_gives_the_same_answer(length, seed, positions):
    sampler = EpochSampler(length, seed=seed)
    together = sampler.indices(np.array(positions, dtype=np.int64))
    alone = [int(sampler.indices(np.array([position]))[0]) for position in positions]
    assert together.tolist() == alone


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(2, 40),
    seed=SEEDS,
    batch_size=st.integers(1, 17),
    start=st.integers(0, 12),
    prefetch=st.integers(0, 5),
    workers=st.integers(1, 3),
)
def test_batches_are_the_same_from_any_start_at_any_depth(
    length, seed, batch_size, start, prefetch, workers
):
    options = {"batch_size": batch_size, "seed": seed, "augmentation": EVERYTHING}
    plain = Loader(Noise(length), prefetch=0, **options)
    ahead = Loader(Noise(length), prefetch=prefetch, workers=workers, **options)
    reference = list(plain.batches(0, start + 3))[start:]
    for expected, batch in zip(reference, ahead.batches(start, start + 3), strict=True):
        assert torch.equal(expected.images, batch.images)
        assert torch.equal(expected.labels, batch.labels)
        assert expected.first_position == batch.first_position


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    first=st.integers(0, 2**40),
    size=st.integers(1, 40),
    pick=st.lists(st.integers(0, 39), min_size=1, max_size=8),
    side=st.sampled_from([8, 13]),
    options=st.sampled_from([EVERYTHING, WITHOUT_WARP]),
)
def test_batch_mates_do_not_change_a_sample(seed, first, size, pick, side, options):
    images = torch.from_numpy(
        np.random.default_rng(1).integers(0, 256, (size, side, side, 3), dtype=np.uint8)
    )
    positions = np.arange(first, first + size)
    chosen = np.array([i % size for i in pick])
    together = augment(images, positions=positions, seed=seed, options=options)
    apart = augment(images[chosen], positions=positions[chosen], seed=seed, options=options)
    assert torch.equal(together[chosen], apart)


NAMES = st.lists(
    st.text("abcü 李/.-_", min_size=1, max_size=160).filter(
        lambda name: not name.startswith("/") and not name.endswith("/")
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(names=NAMES, form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), data=st.data())
def test_tar_headers_agree_with_tarfile(names, form, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.tar"
        with tarfile.open(path, "w", format=form) as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.type = data.draw(
                    st.sampled_from(
                        [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
                    )
                )
                content = data.draw(st.binary(max_size=1500)) if info.isreg() else b""
                info.size, info.linkname = len(content), "x" * data.draw(st.integers(1, 150))
                tar.addfile(info, io.BytesIO(content))
        with tarfile.open(path) as tar:
            expected = [
                Member(m.name, m.offset_data, m.size, None if m.isreg() else m.linkname * m.islnk())
                for m in tar
                if not m.isdir()
            ]
        found = list(iterate_members(PlainFile(path)))
    assert found == expected
