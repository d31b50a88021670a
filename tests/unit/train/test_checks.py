import os

import pytest

from manyface.base.errors import ConfigError
from manyface.config import parse_config
from manyface.data.synthetic import SyntheticFaces
from manyface.train.checks import (
    check_batch_size,
    check_ranks,
    collapse_warning,
    fast_centers_warning,
    recipe_warnings,
    single_images_warning,
)


def faces(**options):
    return SyntheticFaces(num_identities=options.pop("people", 10), image_size=32, **options)


def test_a_batch_that_the_data_fill_is_fine():
    check_batch_size(30, faces(images_per_identity=3))


@pytest.mark.parametrize("batch_size", [31, 10**9, 10**30])
def test_a_batch_larger_than_the_data_is_refused(batch_size):
    with pytest.raises(ConfigError, match=rf"batch_size is {batch_size}, but .* 30 images.*30"):
        check_batch_size(batch_size, faces(images_per_identity=3))


def test_a_batch_larger_than_the_memory_is_refused():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    too_many = memory // (3 * 32 * 32 * 4) + 1
    source = faces(people=too_many, images_per_identity=1)
    with pytest.raises(ConfigError, match=r"batch_size is \d+: .* GiB .* memory; lower"):
        check_batch_size(too_many, source)


def test_people_with_one_image_each_are_warned_of():
    assert "2 or more" in (single_images_warning(faces(images_per_identity=1)) or "")
    assert single_images_warning(faces(images_per_identity=2)) is None


@pytest.mark.parametrize("method, size, least", [("f2c", 3, 8), ("f2c", 5, 8), ("full", 3, 4)])
def test_more_ranks_than_a_batch_is_enough_for_are_told_the_least(method, size, least):
    with pytest.raises(ConfigError, match=f"set it to {least} or more"):
        check_ranks(size, 2, method=method)
    check_ranks(least, 2, method=method)


def test_class_centers_that_the_first_step_throws_far() -> None:
    """A rate of 0.1 moves them by 9.8 lengths in batches of 128, by 1.2 in batches of 1,024."""
    assert fast_centers_warning(parse_config("")) is None
    fast = "optimizer.learning_rate = 0.1"
    warning = fast_centers_warning(parse_config(fast)) or ""
    assert "by 10 times the center's first length" in warning
    assert "head.learning_rate to about 0.01 for batches of 128" in warning
    for words in (["train.batch_size=1024"], ["train.batch_size=64", "optimizer.accumulation=16"],
                  ["head.learning_rate=0.02"], ["head.momentum=0"], ["head.method=f2c"],
                  ["head.optimizer=adamw"]):  # fmt: skip
        assert fast_centers_warning(parse_config(fast, words)) is None, words


def test_margins_under_which_f2c_leaves_all_embeddings_alike() -> None:
    collapsing = 'head.method = "f2c"\npool.ratio = 0.1\nhead.margin = "arcface"'
    config = parse_config(collapsing)
    assert '"straight_through"' in (collapse_warning(config) or "")
    assert recipe_warnings(config) == [collapse_warning(config)]
    assert collapse_warning(parse_config(collapsing, ["schedule.epochs=20"]))
    for words in (["head.gradient=straight_through"], ["head.margin=cosface"],
                  ["head.margin=combined"], ["head.method=full"],
                  ["schedule.epochs=20", "schedule.warmup_epochs=6"],
                  ["schedule.steps=100", "schedule.warmup_steps=40"]):  # fmt: skip
        assert collapse_warning(parse_config(collapsing, words)) is None, words
