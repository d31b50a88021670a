"""Configurations of insightface become recipes that training accepts; the rest is listed.

MANYFACE_INSIGHTFACE=DIR names a checkout of insightface, whose configurations are all converted.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manyface.backbones import create_backbone
from manyface.base.errors import ConfigError
from manyface.cli.program import main
from manyface.compat.insightface_config import BASE, NETWORKS, Conversion, convert
from manyface.config import Config, parse_config

CHECKOUT = os.environ.get("MANYFACE_INSIGHTFACE")
HEAD = "from easydict import EasyDict as edict\nconfig = edict()\n"
PARTIAL = """
config.margin_list = (1.0, 0.0, 0.4)
config.network = "r100"
config.resume = False
config.output = None
config.embedding_size = 256
config.sample_rate = 0.2
config.interclass_filtering_threshold = 0.4
config.fp16 = True
config.momentum = 0.9
config.weight_decay = 1e-4
config.batch_size = 128
config.lr = 0.2
config.verbose = 1000
config.dali = False
config.rec = "/train_tmp/WebFace42M"
config.num_classes = 2059906
config.num_image = 42474557
config.num_epoch = 20
config.warmup_epoch = config.num_epoch // 10
config.val_targets = ['lfw', 'cfp_fp', "agedb_30"]
"""
ADAMW = """
config.margin_list = (1.0, 0.0, 0.4)
config.network = "vit_b_dp005_mask_005"
config.sample_rate = 0.3
config.weight_decay = 0.1
config.batch_size = 256
config.gradient_acc = 12
config.optimizer = "adamw"
config.lr = 0.001
config.rec = "/train_tmp/WebFace42M"
config.num_image = 42474557
config.num_epoch = 40
"""


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(HEAD + text)
        return path

    return write


def recipe(path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Config:
    assert main(["import-config", str(path), *words]) == 0
    return parse_config(capsys.readouterr().out)


def listed(lines: list[str], key: str) -> str:
    (line,) = [line for line in lines if line.split(":")[0].startswith(key)]
    return line


def test_partial_sgd(given: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    config = recipe(given(PARTIAL), capsys, "--ranks", "16")
    assert (config.run.name, config.run.seed, config.run.precision) == ("mine", 2048, "auto")
    assert config.data.path == "/train_tmp/WebFace42M"
    assert (config.backbone.name, config.backbone.embedding_size) == ("r100", 256)
    head = config.head
    assert (head.method, head.sample_rate, head.margin, head.m) == ("partial", 0.2, "cosface", 0.4)
    assert (head.negatives, head.negatives_threshold) == ("interclass_filter", 0.4)
    assert (head.momentum, head.weight_decay, head.missed_steps) == (0.9, 1e-4, "lazy-exact")
    learning = config.optimizer
    assert (learning.name, learning.learning_rate, learning.momentum) == ("sgd", 0.2, 0.9)
    assert (learning.weight_decay, learning.clip_norm) == (1e-4, 5)
    schedule = config.schedule
    assert (schedule.epochs, schedule.warmup_epochs, schedule.decay) == (20, 2, "polynomial")
    assert (schedule.power, schedule.final_fraction) == (1, 0)
    assert (config.train.batch_size, config.train.log_every) == (2048, 10)
    assert (config.evaluation.every_steps, config.evaluation.pairs) == (1000, "lfw.bin")


def test_what_is_listed(given: Callable[..., Path]) -> None:
    found = convert(given(PARTIAL), ranks=16)
    assert found.not_understood == []
    assert "one set, lfw.bin" in listed(found.not_mapped, "val_targets")
    assert f"schedule.steps = {42474557 // 2048 * 20}" in listed(found.differs, "num_image")
    assert "2059906" in listed(found.differs, "num_classes")
    assert "2048 on 16 GPUs" in listed(found.differs, "batch_size")
    for key in ("fp16", "sample_rate", "weight_decay", "head.missed_steps", "warmup_epoch"):
        assert listed(found.differs, key)


def test_adamw(given: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = given(ADAMW)
    config = recipe(path, capsys)
    assert (config.optimizer.name, config.head.optimizer) == ("adamw", "adamw")
    assert (config.optimizer.accumulation, config.train.batch_size) == (12, 256)
    assert config.head.missed_steps == "frozen"
    assert (config.backbone.name, config.backbone.drop_path) == ("vit_b", 0.05)
    assert config.backbone.activation_checkpointing
    assert config.run.precision == "fp32"
    found = convert(path)
    assert f"trained for {42474557 // 256 * 40 // 12} updates" in listed(found.differs, "num_image")
    assert listed(found.differs, "gradient_acc")
    assert listed(found.differs, "optimizer")


@pytest.mark.parametrize(
    "margins, margin, values",
    [
        ((1.0, 0.5, 0.0), "arcface", {"m": 0.5, "gradient": "straight_through"}),
        ((1, 0, 0.4), "cosface", {"m": 0.4}),
        ((1.0, 0.5, 0.35), "cosface", {"m": 0.35}),
        ((1.0, 0.0, 0.0), "normface", {}),
        ((0.9, 0.4, 0.0), "combined", {"m1": 0.9, "m2": 0.4, "m3": 0.0}),
    ],
)
def test_margins(
    given: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    margins: tuple[float, ...],
    margin: str,
    values: dict[str, Any],
) -> None:
    head = recipe(given(f"config.margin_list = {margins}"), capsys).head
    assert head.margin == margin
    assert {key: getattr(head, key) for key in values} == values


@pytest.mark.parametrize(
    "rate, method, share", [(1, "full", 1), (1.0, "full", 1), (0, "partial", 0)]
)
def test_sample_rate(
    given: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    rate: float,
    method: str,
    share: float,
) -> None:
    head = recipe(given(f"config.sample_rate = {rate}"), capsys).head
    assert (head.method, head.sample_rate) == (method, share)


def test_synthetic(given: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "config.rec = 'synthetic'\nconfig.num_classes = 30 * 100\nconfig.num_image = 9000\n"
        "config.num_epoch = 30\nconfig.warmup_epoch = -1\nconfig.val_targets = []\n"
    )
    config = recipe(given(text), capsys)
    assert config.data.path == "synthetic"
    assert config.data.synthetic.num_identities == 3000
    assert config.data.synthetic.images_per_identity == 3
    assert config.schedule.warmup_epochs == 0


def test_base_beside_it_is_merged(given: Callable[..., Path], tmp_path: Path) -> None:
    given("config.lr = 0.7\nconfig.seed = 3\nconfig.batch_size = f()\n", "base.py")
    path = given("config.lr = 0.5\n")
    found = convert(path)
    assert found.table["optimizer"]["learning_rate"] == 0.5
    assert found.table["run"]["seed"] == 3
    assert found.table["train"]["batch_size"] == BASE["batch_size"]
    assert listed(found.not_understood, "base.py, line 5")


def test_an_empty_one_is_their_base(given: Callable[..., Path]) -> None:
    found = convert(given(""))
    assert found.table["backbone"]["name"] == "r50"
    assert listed(found.not_mapped, "rec")
    assert listed(found.not_mapped, "num_epoch")


def test_keys_without_a_place_are_named(given: Callable[..., Path]) -> None:
    text = (
        "config.dali = True\nconfig.dali_aug = False\nconfig.wandb_key = 'secret'\n"
        "config.using_wandb = True\nconfig.num_workers = 4\nconfig.tricks = 3\n"
        "config.network = 'r2060'\nconfig.momentum = 0.8\n"
    )
    found: Conversion = convert(given(text))
    keys = {line.split(":")[0] for line in found.not_mapped}
    assert keys == {
        *("rec", "num_epoch", "dali", "wandb_key, using_wandb", "num_workers", "tricks", "network")
    }
    assert "secret" not in "".join(found.not_mapped + found.differs)
    assert "passes over 0.8" in listed(found.differs, "momentum")


def test_what_is_not_understood_is_named_and_base_stands(
    given: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    text = f"config.lr = 3.0\nconfig.lr = open('{ran}', 'w').write('x') * 0.1\n"
    assert main(["import-config", str(given(text))]) == 0
    out, err = capsys.readouterr()
    assert parse_config(out).optimizer.learning_rate == 0.1
    assert "mine.py, line 4: config.lr = open(" in err
    assert not ran.exists()


def test_output(given: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = given("config.output = '/models/big/first'\n")
    place = path.parent / "recipes" / "mine.toml"
    assert main(["import-config", str(path), "-o", str(place)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "weight_decay" in err
    run = parse_config(place.read_text()).run
    assert (run.directory, run.name) == ("/models/big", "first")


@pytest.mark.parametrize(
    "text, message",
    [
        ("config.lr = 'fast'", "config.lr: got 'fast', expected a number"),
        ("config.batch_size = 12.5", "config.batch_size: got 12.5, expected a whole number"),
        ("config.network = None\nconfig.network = 3", "expected a text"),
        ("config.fp16 = 1", "config.fp16: got 1, expected True or False"),
        ("config.margin_list = (1.0, 0.5)", "config.margin_list: got list, expected three numbers"),
        ("config.margin_list = (1.0, -0.5, 0)", "cannot be a recipe: its recipe: head.m: got -0.5"),
        ("config.optimizer = 'lion'", "head.optimizer: got"),
        ("config.sample_rate = -1", "head.sample_rate: got -1"),
        ("config = 3", "assigns no `config`"),
        ("config.lr = (", "line 3: no Python 3"),
    ],
)
def test_wrong_values_are_one_line(
    given: Callable[..., Path], capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = given(text)
    assert main(["import-config", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert str(path) in err
    assert all(line.startswith("error: ") for line in err.splitlines())


def test_no_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import-config", str(tmp_path / "absent.py")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_ranks_of_a_config_are_positive(given: Callable[..., Path]) -> None:
    assert main(["import-config", str(given("")), "--ranks", "0"]) == 2


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_can_be_built(network: str) -> None:
    name, options = NETWORKS[network]
    create_backbone(name, device="meta", **options)


@pytest.mark.skipif(CHECKOUT is None, reason="MANYFACE_INSIGHTFACE names no checkout")
def test_every_config_of_the_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(str(CHECKOUT)) / "recognition" / "arcface_torch" / "configs"
    paths = sorted(set(folder.glob("*.py")) - {folder / "__init__.py"})
    assert len(paths) > 30
    for path in paths:
        config = recipe(path, capsys, "--ranks", "8")
        assert config.train.batch_size % 8 == 0
        assert convert(path).not_understood == []


def test_convert_raises_for_the_library_too(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("y = 1\n")
    with pytest.raises(ConfigError, match="assigns no `config`"):
        convert(tmp_path / "x.py")
