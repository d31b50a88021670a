import numpy as np
import pytest
import simplejpeg
import torch
from safetensors.torch import save_file

from manyface.base.errors import ConfigError, DataError
from manyface.base.threads import cpu_threads
from manyface.centers import RowAdamW
from manyface.config import parse_config
from manyface.data import VerificationSet, write_bin
from manyface.data.synthetic import SyntheticFaces
from manyface.heads import ClassBalanced, FullFC, PartialFC, Strata
from manyface.margins import (
    AdaFace,
    ArcFace,
    CombinedMargin,
    CosFace,
    CurricularFace,
    InterclassFilter,
    MagFace,
    MVSoftmax,
    NormFace,
    SphereFace,
)
from manyface.train.build import build_plan, build_training
from manyface.train.build_data import build_source
from manyface.train.build_model import (
    build_backbone,
    build_center_optimizer,
    build_head,
    build_margin,
    build_method,
    build_optimizer,
    build_precision,
)
from manyface.train.build_pairs import build_evaluators, build_pairs
from manyface.train.devices import autocast_dtype, choose_device
from manyface.train.step import FiniteGuard, train_step

TINY = [
    "data.image_size=32",
    "data.synthetic.num_identities=20",
    "data.synthetic.images_per_identity=3",
    "backbone.name=tiny",
    "backbone.embedding_size=16",
    "train.batch_size=8",
    "evaluation.num_pairs=40",
    "evaluation.num_identities=40",
    "evaluation.folds=2",
]
CPU = torch.device("cpu")


def tiny(*overrides: str):
    return parse_config("", [*TINY, *overrides])


def no_warning(text: str) -> None:
    raise AssertionError(text)


def test_everything_at_once():
    training = build_training(tiny("schedule.epochs=2"), warn=no_warning)
    assert isinstance(training.source, SyntheticFaces)
    assert training.plan.schedule.num_steps == 15  # 60 images / 8, twice
    assert len(training.evaluators) == 1
    assert training.method.averaged is None
    assert training.method.head.num_classes == 20


def test_centers_as_the_recipe_says(tmp_path):
    head = build_head(
        tiny(
            "head.sample_rate=0.5",
            "head.block=4",
            "head.dtype=bfloat16",
            "head.momentum=0",
            "head.missed_steps=decay-only",
            "head.placement=file",
            f"head.placement_folder={tmp_path}",
        ),
        20,
        device=CPU,
    )
    assert (head.sampler.block, head.operands, head.centers.dtype) == (4, None, torch.bfloat16)
    assert {path.name for path in tmp_path.glob("*.rows")} == {"weight.rows", "touched.rows"}
    assert (tmp_path / "weight.rows").stat().st_size == 20 * 16 * 2, "no momentum, 2 bytes each"
    same = tiny("head.operands=bfloat16", "head.placement=host")
    assert build_head(same, 20, device=CPU).operands == torch.bfloat16
    assert list(build_head(tiny("head.momentum=0"), 20, device=CPU).state_dict()) == [
        "_extra_state",
        "centers.weight",
    ]


def test_optimizers_of_the_centers():
    lazy = build_center_optimizer(tiny("head.missed_steps=lazy-exact", "head.momentum=0.8"))
    assert (lazy.mode, lazy.momentum, lazy.weight_decay) == ("lazy-exact", 0.8, 5e-4)
    adamw = build_center_optimizer(tiny("head.optimizer=adamw", "head.weight_decay=0.01"))
    assert (type(adamw), adamw.weight_decay) == (RowAdamW, 0.01)
    assert not adamw.row_wise_second_moment
    rows = tiny("head.optimizer=adamw", "head.row_wise_second_moment=true")
    assert build_center_optimizer(rows).row_wise_second_moment


def test_a_folder_of_centers_that_cannot_be_used_is_named(tmp_path):
    def build(folder):
        files = ("head.placement=file", f"head.placement_folder={folder}")
        return build_head(tiny(*files), 20, device=CPU)

    (tmp_path / "a file").write_text("")
    with pytest.raises(ConfigError, match=r"^head\.placement_folder: cannot write .*a file"):
        build(tmp_path / "a file" / "rows")
    kept = build(tmp_path / "made" / "anew")
    with pytest.raises(
        ConfigError,
        match=r"^head\.placement_folder: .* of another head, of this or another process",
    ):
        build(tmp_path / "made" / "anew")
    assert kept.num_classes == 20


@pytest.mark.parametrize(
    "overrides, margin",
    [
        (["head.margin=normface"], NormFace()),
        (["head.m=0.3"], CosFace(0.3)),
        (
            ["head.margin=arcface", "head.gradient=straight_through"],
            ArcFace(0.5, gradient="straight_through"),
        ),
        (["head.margin=combined", "head.m2=0.3", "head.m3=0.1"], CombinedMargin(1.0, 0.3, 0.1)),
        (["head.margin=sphereface", "head.annealing=5"], SphereFace(4.0, annealing=5.0)),
        (["head.margin=adaface", "head.t_alpha=0.1"], AdaFace(t_alpha=0.1)),
        (["head.margin=magface", "head.u_a=50"], MagFace(u_a=50.0)),
    ],
)
def test_margins(overrides, margin):
    assert build_margin(tiny(*overrides)) == margin


@pytest.mark.parametrize(
    "overrides, rule",
    [
        ([], None),
        (["head.negatives=curricular"], CurricularFace()),
        (["head.negatives=mv", "head.negatives_weighting=fixed"], MVSoftmax(0.2, "fixed")),
        (["head.negatives=interclass_filter"], InterclassFilter(0.4, "zero")),
        (
            ["head.negatives=interclass_remove", "head.negatives_threshold=0.3"],
            InterclassFilter(0.3, "remove"),
        ),
    ],
)
def test_rules_for_negatives(overrides, rule):
    head = build_head(tiny(*overrides, "head.label_smoothing=0.1"), 20, device=CPU)
    assert head.negatives == rule
    assert head.label_smoothing == 0.1


def test_heads():
    full = build_head(tiny(), 20, device=CPU)
    partial = build_head(tiny("head.sample_rate=0.3", "head.scale=32"), 20, device=CPU)
    assert type(full) is FullFC
    assert type(partial) is PartialFC
    assert (partial.sample_rate, partial.scale) == (0.3, 32.0)
    assert torch.equal(full.centers.weight, partial.centers.weight)  # the seed alone decides
    several = build_head(tiny("head.sub_centers=3"), 20, device=CPU)
    assert (several.sub_centers, len(several.centers.weight)) == (3, 60)


def test_schedules():
    linear = build_head(
        tiny(
            "head.margin=adaface",
            "head.margin_schedule=linear",
            "head.margin_steps=10",
            "head.scale_schedule=linear",
            "head.scale=32",
            "head.scale_steps=4",
        ),
        20,
        device=CPU,
    )
    found = [
        (round(margin.m, 9), scale) for margin, scale in map(linear.loss_at, (0, 2, 5, 10, 99))
    ]
    assert found == [(0, 16), (0.08, 24), (0.2, 32), (0.4, 32), (0.4, 32)]
    annealed = build_head(
        tiny("head.margin=sphereface", "head.margin_schedule=sphereface"), 20, device=CPU
    )
    found = [annealed.loss_at(step)[0].annealing for step in (0, 100, 10**6)]
    assert found == [1000.0, pytest.approx(1000 / 13), 5.0]
    assert build_head(tiny(), 20, device=CPU).schedules == {}


def test_samplers():
    overrides = {
        "strata": ["head.strata=4"],
        "balanced": ["head.balance_power=0.5"],
        "hard": ["head.hard_neighbours=3", "head.hard_share=0.2", "head.hard_refresh_steps=7"],
    }
    built = {
        name: build_training(
            tiny("head.sample_rate=0.3", f"head.sampler={name}", *keys), warn=no_warning
        ).method.head.sampler
        for name, keys in overrides.items()
    }
    assert built["strata"] == Strata(4)
    assert isinstance(built["balanced"], ClassBalanced)
    hard = built["hard"]
    assert (hard.nearest.shape[1], hard.share, hard.refresh_steps) == (3, 0.2, 7)
    with pytest.raises(ConfigError, match="needs the number of images"):
        build_head(tiny("head.sample_rate=0.3", "head.sampler=balanced"), 20, device=CPU)
    with pytest.raises(ConfigError, match="strata of"):
        build_head(
            tiny("head.sample_rate=0.3", "head.sampler=strata", "head.strata=21"), 20, device=CPU
        )


def test_the_seed_decides_the_first_values():
    one, same, other = (build_backbone(tiny(f"run.seed={seed}")) for seed in (1, 1, 2))
    state, again, another = (net.state_dict() for net in (one, same, other))
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert not all(torch.equal(state[name], another[name]) for name in state)


def test_filling_the_pool_before_the_first_step():
    assert build_training(tiny(), warn=no_warning).preparation is None
    f2c = ["head.method=f2c", "pool.ratio=0.5"]
    assert build_training(tiny(*f2c), warn=no_warning).preparation is None
    filled = build_training(tiny(*f2c, "pool.prefill=true"), warn=no_warning).preparation
    assert filled.num_images == sum(len(b.images) for b in filled.batches()) == 10
    one = tiny("head.method=f2c", "pool.slots=1", "pool.rule=sequential", "pool.prefill=true")
    with pytest.raises(ConfigError, match=r"prefill needs at least 2 slots"):
        build_training(one, warn=no_warning)


@pytest.mark.parametrize("method", ["full", "partial"])
def test_heads_with_centers_may_be_fed_pairs(method: str) -> None:
    training = build_training(tiny(f"head.method={method}", "data.batches=pairs"), warn=no_warning)
    batch = training.loader.batch(0)
    first, second = batch.labels.chunk(2)
    assert torch.equal(first, second)
    assert len(first.unique()) == 4


def test_virtual_needs_anchors_for_all_people_of_a_batch():
    enough = tiny("head.method=virtual", "pool.slots=6", "pool.identity_share=0.5")
    assert build_training(enough, warn=no_warning).method.head.num_anchors == 6  # 2 pairs, 4 others
    few = tiny("head.method=virtual", "pool.slots=5", "pool.identity_share=0.5")
    with pytest.raises(ConfigError, match=r"may show 6 people; set pool.slots to 6 or more"):
        build_training(few, warn=no_warning)


def test_norms_biases_and_slopes_are_not_decayed():
    backbone = build_backbone(tiny())
    decayed, free = build_optimizer(tiny("optimizer.weight_decay=0.1"), backbone).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert all(parameter.ndim == 1 for parameter in free["params"])
    learning = [p for p in backbone.parameters() if p.requires_grad]
    assert len(decayed["params"]) + len(free["params"]) == len(learning)


def after_steps(*overrides: str, steps: int = 3) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of the first steps, and the weights after them."""
    training = build_training(tiny("run.precision=fp32", *overrides), warn=no_warning)
    guard, losses = FiniteGuard(CPU), []
    for step, batch in enumerate(training.loader.batches(0, steps)):
        done = train_step(training.method, [batch], step=step, factor=0.1, seed=0, guard=guard)
        losses.append(float(done.loss))
    return losses, training.method.net.state_dict()


def assert_equal_to_rounding(*overrides: str, steps: int = 3) -> None:
    """Steps with and without the last override, whose key says false."""
    plain = after_steps(*overrides, steps=steps)
    fast = after_steps(*overrides[:-1], steps=steps)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [["optimizer.nesterov=true"], ["optimizer.momentum=0"], ["optimizer.name=adamw"], []],
)
def test_the_fused_optimizer_is_the_plain_one(overrides):
    if overrides == ["optimizer.name=adamw"]:
        overrides = [*overrides, "optimizer.learning_rate=0.001"]
    for fused in (True, False):
        made = made_optimizer(*overrides, f"optimizer.fused={str(fused).lower()}")
        assert all(group["fused"] is (fused or None) for group in made.param_groups)
    assert_equal_to_rounding(*overrides, "optimizer.fused=false")


def made_optimizer(*overrides: str) -> torch.optim.Optimizer:
    return build_optimizer(tiny(*overrides), build_backbone(tiny()))


@pytest.mark.parametrize("name, steps", [("tiny", 3), ("r18", 1)])
def test_channels_last_is_the_same_net(name, steps):
    # Later steps of deep nets amplify rounding: batch norm over 8 images of few pixels.
    assert_equal_to_rounding(f"backbone.name={name}", "run.channels_last=false", steps=steps)


def test_who_takes_channels_last():
    assert build_backbone(tiny()).channels_last
    assert not build_backbone(tiny("run.channels_last=false")).channels_last
    assert not build_backbone(tiny("backbone.name=vit_t", "data.image_size=112")).channels_last


def test_adamw_and_learning_rates():
    config = tiny("optimizer.name=adamw", "optimizer.learning_rate=0.001")
    method = build_method(config, 20, device=CPU, autocast=None)
    assert isinstance(method.optimizer, torch.optim.AdamW)
    assert method.head_learning_rate == method.base_learning_rate == 0.001
    config = tiny("head.learning_rate=0.5")
    assert build_method(config, 20, device=CPU, autocast=None).head_learning_rate == 0.5


@pytest.mark.parametrize(
    "overrides, steps, warmup, evaluate_every",
    [
        (["schedule.epochs=2"], 15, 0, 8),
        (["schedule.epochs=0.1"], 1, 0, 8),
        (["schedule.steps=9", "schedule.warmup_steps=3"], 9, 3, 8),
        (["schedule.epochs=4", "schedule.warmup_epochs=1"], 30, 8, 8),
        (["evaluation.every_steps=5"], 150, 0, 5),
        (["evaluation.every_epochs=0"], 150, 0, 0),
    ],
)
def test_lengths_in_steps(overrides, steps, warmup, evaluate_every):
    plan = build_plan(tiny(*overrides), 7.5)
    assert plan.schedule.num_steps == steps
    assert plan.schedule.warmup_steps == warmup
    assert plan.evaluate_every == evaluate_every


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match="warm-up"):
        build_plan(tiny("schedule.steps=3", "schedule.warmup_epochs=1"), 7.5)


def test_accumulation_makes_epochs_of_fewer_steps():
    training = build_training(
        tiny("schedule.epochs=2", "optimizer.accumulation=2"), warn=no_warning
    )
    assert training.plan.schedule.num_steps == 8


def test_a_long_tail_is_of_the_people_trained_on_and_not_of_the_pairs():
    equal, tailed = (tiny(f"data.synthetic.long_tail={tail}") for tail in (0, 100))
    source = build_source(tailed, warn=no_warning)
    _, counts = source.images_of(np.arange(20))
    assert len(source) == len(build_source(equal, warn=no_warning)) == 60
    assert counts.min() == 1
    assert counts.max() > 9
    pairs = [build_pairs(config, warn=no_warning) for config in (equal, tailed)]
    _, of_pairs = pairs[1].source.images_of(np.arange(40))
    assert set(of_pairs.tolist()) == {3}
    assert np.array_equal(pairs[0].left, pairs[1].left)
    assert np.array_equal(pairs[0].right, pairs[1].right)
    assert build_training(tailed, warn=no_warning).method.head.num_classes == 20


def test_synthetic_pairs_are_of_people_nobody_trains_on():
    config = tiny()
    pairs = build_pairs(config, warn=no_warning)
    assert pairs.name == "synthetic"
    source = build_source(config, warn=no_warning)
    assert not set(source.identity_names) & set(pairs.identity_names())
    seen = []
    build_evaluators(config, pairs.source, warn=seen.append)
    assert "are in the training data too" in seen[0]


@pytest.mark.parametrize(
    "override, words",
    [
        ("data.synthetic.difficulty=hard", "difficulty: expected one of faces-1"),
        ("data.synthetic.num_identities=5000000000", "num_identities must be within"),
        ("data.synthetic.images_per_identity=5000000", "images_per_identity must be within"),
        ("data.image_size=16", "image_size must be within"),
        (
            ["data.synthetic.long_tail=9", "data.synthetic.images_per_identity=1"],
            "data.synthetic: .* long_tail is 9, but images_per_identity is 1",
        ),
        ("evaluation.num_identities=5000000000", "num_identities must be within"),
        ("evaluation.num_pairs=42", "evaluation: num_pairs must be a multiple"),
        ("evaluation.num_pairs=400000", "use fewer pairs, or more people"),
    ],
)
def test_made_up_faces_that_cannot_be_had_are_a_wrong_recipe(override, words):
    config = tiny(*([override] if isinstance(override, str) else override))
    with pytest.raises(ConfigError, match=words):
        build_evaluators(config, build_source(config, warn=no_warning), warn=no_warning)


@pytest.mark.parametrize(
    "override, begins, says",
    [
        ("data.path=/nowhere", "data.path: no such data", "give the path"),
        ("data.people=nobody.txt", "data.people: cannot read", "give the path"),
        ("data.people=empty.txt", "data.people: the list of people is empty", "one name per line"),
        ("data.keep=/nowhere", "data.keep: cannot read", "/nowhere"),
        ("evaluation.path=/nowhere", "evaluation.path: no such data", "give the path"),
        ("evaluation.pairs=absent.txt", "evaluation.pairs: cannot read", "give the path"),
        ("evaluation.pairs=empty.txt", "evaluation.pairs: the list of pairs is empty", "expected"),
        ("evaluation.pairs=strangers.txt", "evaluation.pairs: no person 'X'", "is the list for"),
        ("evaluation.folds=3", "evaluation.pairs: 2 same pairs cannot fill 3", "use fewer folds"),
    ],
)
def test_data_that_cannot_be_used_are_named_by_their_key(tmp_path, override, begins, says):
    for person in ("Ann", "Bob"):
        (tmp_path / "faces" / person).mkdir(parents=True)
        (tmp_path / "faces" / person / "1.jpg").touch()
    (tmp_path / "faces/empty.txt").touch()
    (tmp_path / "faces/strangers.txt").write_text("2\nX 1 2\nX 1 3\nX 1 Ann 1\nX 2 Ann 1\n")
    config = tiny(f"data.path={tmp_path / 'faces'}", "evaluation.pairs=strangers.txt", override)
    with pytest.raises(DataError) as caught:
        build_evaluators(config, build_source(config, warn=no_warning), warn=no_warning)
    assert str(caught.value).startswith(begins)
    assert says in str(caught.value)


def test_start_weights(tmp_path):
    donor = build_backbone(tiny("run.seed=9"))
    path = tmp_path / "start here.safetensors"
    save_file(donor.state_dict(), path)
    started = build_backbone(tiny(f"backbone.weights={path}"))
    expected = donor.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in started.state_dict().items())


def test_options_reach_the_net():
    backbone = build_backbone(
        tiny("backbone.dropout=0.4", "backbone.activation_checkpointing=true")
    )
    assert [m.p for m in backbone.modules() if isinstance(m, torch.nn.Dropout)] == [0.4]


def test_devices():
    assert choose_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(ConfigError, match="no CUDA GPU"):
            choose_device("cuda")
    assert autocast_dtype("fp32", CPU) is None
    assert autocast_dtype("bf16", CPU) is torch.bfloat16


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, None)])
def test_auto_takes_bf16_where_the_cpu_has_it(monkeypatch, has_bf16, expected):
    monkeypatch.setattr("manyface.train.devices.cpu_has_bf16", lambda: has_bf16)
    assert autocast_dtype("auto", CPU) is expected


def test_slow_bf16_is_warned_of(monkeypatch):
    monkeypatch.setattr("manyface.train.build_model.cpu_has_bf16", lambda: False)
    said = []
    assert build_precision(tiny("run.precision=bf16"), CPU, warn=said.append) is torch.bfloat16
    assert "no bf16 instructions" in said[0]


def test_thread_count_is_put_back():
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    with cpu_threads(0):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_a_verification_set_is_recognised_by_its_content(tmp_path):
    images = [np.full((32, 32, 3), 20 * number, np.uint8) for number in range(8)]
    encoded = [simplejpeg.encode_jpeg(image) for image in images]
    same = np.array([True, False, False, True])
    write_bin(tmp_path / "agedb.set", VerificationSet(encoded, same))
    config = tiny(f"evaluation.pairs={tmp_path / 'agedb.set'}")
    pairs = build_pairs(config, warn=no_warning)
    assert (pairs.name, len(pairs), pairs.fold.tolist()) == ("agedb", 4, [0, 0, 1, 1])
    shown = pairs.source.load(pairs.right)
    assert [int(image.float().mean().round()) for image in shown] == [20, 60, 100, 140]
    warnings = []
    build_evaluators(config, build_source(config, warn=no_warning), warn=warnings.append)
    assert "nobody is named in agedb" in warnings[0]
    with pytest.raises(DataError, match=r"evaluation\.pairs: agedb has 4 pairs, too few for 5"):
        build_pairs(tiny(f"evaluation.pairs={tmp_path / 'agedb.set'}", "evaluation.folds=5"),
                    warn=no_warning)  # fmt: skip


def test_a_list_of_pairs_needs_photos():
    with pytest.raises(ConfigError, match=r"data.path is 'synthetic'; set evaluation.path"):
        build_pairs(tiny("evaluation.pairs=pairs.txt"), warn=no_warning)
