"""Recipes: what is read, filled in, overridden and refused, and that each refusal is one line."""

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from manyface.base.errors import ConfigError
from manyface.config import Config, load_config, parse_config, render_page
from manyface.data import Augmentation

ROOT = Path(__file__).parents[2]


def refusal(text: str = "", *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_empty_recipe_is_the_default() -> None:
    assert parse_config("") == Config()


def test_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().run.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["head.sample_rate=0.1"],
        ["head.margin=combined", "head.m2=0.3", "head.gradient=straight_through"],
        ["head.margin=normface"],
        ["head.margin=magface", "head.u_a=50", "head.negatives=curricular"],
        ["head.placement=file", "head.placement_folder=/tmp/x", "head.dtype=bfloat16"],
        ["head.optimizer=adamw", "head.row_wise_second_moment=true", "head.operands=bfloat16"],
        ["head.sample_rate=0.1", "head.block=32", "head.missed_steps=lazy-exact"],
        ["schedule.steps=100", "schedule.warmup_steps=10"],
        ["evaluation.every_steps=50", "evaluation.fars=[0.5, 1e-05]"],
        ["optimizer.name=adamw", "optimizer.learning_rate=1e-3"],
        ['data.path=/tmp/Ünïcode "dir" \\ with tab\t and DEL\x7f', "data.people=x.txt"],
    ],
)
@pytest.mark.parametrize("described", [False, True])
def test_resolved_recipe_reads_back_equal(overrides: list[str], described: bool) -> None:
    config = parse_config("", overrides)
    text = config.to_toml(described=described)
    assert parse_config(text) == config
    assert parse_config(parse_config(text).to_toml()) == config


def test_sets_read_back_equal() -> None:
    recipe = '[[data.sets]]\npath = "a"\nweight = 2.0\n[[data.sets]]\npath = "b"\nweight = 1\n'
    config = parse_config(recipe, ["data.image_size=64"])
    assert [each.path for each in config.data.sets] == ["a", "b"]
    assert parse_config(config.to_toml()) == config
    assert parse_config(config.to_toml(described=True)) == config


def test_every_key_is_in_the_resolved_recipe_with_its_meaning() -> None:
    text = Config().to_toml(described=True)
    for section, model in Config.model_fields.items():
        assert f"[{section}]" in text
        for name, info in model.annotation.model_fields.items():  # type: ignore[union-attr]
            assert f"{name} =" in text or f"[{section}.{name}]" in text
            assert info.description


def test_augmentation_section_is_the_library_record() -> None:
    assert Augmentation(**Config().augmentation.model_dump()) == Augmentation()


def test_recipe_name_is_the_run_name(tmp_path: Path) -> None:
    recipe = tmp_path / "my faces.toml"
    recipe.write_text("")
    assert load_config(recipe).run_directory == Path("runs/my faces")
    assert load_config(recipe, ["run.name=other"]).run.name == "other"


# What hangs on another key


def test_sample_rate_alone_makes_the_head_partial() -> None:
    assert parse_config("").head.method == "full"
    assert parse_config("", ["head.sample_rate=0.1"]).head.method == "partial"
    full = '[head]\nmethod = "full"'
    assert parse_config(full, ["head.sample_rate=0.1"]).head.method == "partial"
    assert parse_config(full, ["head.sample_rate=1.0"]).head.method == "partial"
    assert parse_config("", ["head.method=partial"]).head.sample_rate == 0.1
    assert parse_config("", ["head.sample_rate=0"]).head.sample_rate == 0


def test_last_word_wins_over_the_alternative_in_the_recipe() -> None:
    partial = "[head]\nsample_rate = 0.3"
    assert parse_config(partial, ["head.method=full"]).head.sample_rate == 1
    assert parse_config(partial, ["head.method=partial"]).head.sample_rate == 0.3
    steps = parse_config("[schedule]\nepochs = 3", ["schedule.steps=50"]).schedule
    assert (steps.steps, steps.epochs) == (50, None)
    margin = parse_config("[head]\nm = 0.35", ["head.margin=arcface"]).head
    assert (margin.m, margin.gradient) == (0.5, "exact")
    assert parse_config("[head]\nm = 0.35", ["head.margin=cosface"]).head.m == 0.35
    centers = parse_config("[head]\nmomentum = 0.5", ["head.optimizer=adamw"]).head
    assert (centers.optimizer, centers.momentum) == ("adamw", 0.9)
    files = '[head]\nplacement = "file"\nplacement_folder = "x"'
    assert parse_config(files, ["head.placement=host"]).head.placement_folder is None
    blocks = "[head]\nsample_rate = 0.3\nblock = 8"
    assert parse_config(blocks, ["head.method=full"]).head.block is None
    rule = parse_config('[head]\nnegatives = "mv"', ["head.negatives=interclass_filter"]).head
    assert (rule.negatives_t, rule.negatives_threshold) == (None, 0.4)
    every = parse_config("[evaluation]\nevery_epochs = 2", ["evaluation.every_steps=9"]).evaluation
    assert (every.every_steps, every.every_epochs) == (9, None)


CENTERS = "[head]\nlearning_rate = 0.005\nmomentum = 0.5\nweight_decay = 0.01\n"


@pytest.mark.parametrize("method", ["f2c", "virtual"])
@pytest.mark.parametrize("recipe", [CENTERS, CENTERS + "sample_rate = 0.3", CENTERS + "scale = 9"])
def test_what_a_recipe_says_of_centers_has_no_effect_without_them(method: str, recipe: str) -> None:
    plain = parse_config("", [f"head.method={method}"])
    scaled = plain.head.model_copy(update={"scale": 9.0 if "scale" in recipe else 64.0})
    expected = plain.model_copy(update={"head": scaled})
    assert parse_config(recipe, [f"head.method={method}"]) == expected
    assert parse_config(f'{recipe}\nmethod = "{method}"') == expected
    assert parse_config(parse_config(recipe, [f"head.method={method}"]).to_toml()) == expected


@pytest.mark.parametrize("method", ["f2c", "virtual"])
@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_any_shipped_recipe_is_one_for_any_method(path: Path, method: str) -> None:
    assert load_config(path, [f"head.method={method}"]).head.method == method
    assert load_config(path, ["head.method=full"]).head.method == "full"


@pytest.mark.parametrize(
    "key, value",
    [
        *((key, "0.25") for key in ("sample_rate", "learning_rate", "momentum", "weight_decay")),
        ("block", "8"),
        ("optimizer", "adamw"),
        ("missed_steps", "lazy-exact"),
        ("row_wise_second_moment", "true"),
        ("dtype", "bfloat16"),
        ("operands", "bfloat16"),
        ("placement", "host"),
        ("placement_folder", "x"),
    ],
)
def test_centers_on_the_command_line_contradict_a_method_without_them(key: str, value: str) -> None:
    words = rf"^--set head.{key} is of class centers, but method is 'f2c'"
    with pytest.raises(ConfigError, match=words):
        parse_config(CENTERS, ["head.method=f2c", f"head.{key}={value}"])
    if key != "sample_rate":  # which asks for the partial head
        with pytest.raises(ConfigError, match=words):
            parse_config('[head]\nmethod = "f2c"', [f"head.{key}={value}"])


def test_the_pool_of_a_recipe_has_no_effect_where_an_override_wants_another_method() -> None:
    recipe = '[head]\nmethod = "f2c"\n[pool]\nratio = 0.3'
    for override in ("head.method=full", "head.method=partial", "head.sample_rate=0.2"):
        assert parse_config(recipe, [override]) == parse_config("", [override])
    assert parse_config(recipe, ["head.method=virtual"]).pool.ratio == 0.3
    assert "[pool] is for" in refusal("[pool]\nratio = 0.3")
    assert "[pool] is for" in refusal(recipe, "head.method=full", "pool.ratio=0.2")


def test_empty_override_takes_the_key_out() -> None:
    recipe = '[data]\npath = "faces"\npeople = "some.txt"'
    assert parse_config(recipe, ["data.people="]).data.people is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.path=/my faces/Zoë", "/my faces/Zoë"),
        ('data.path="quoted"', "quoted"),
        ("data.path=2024", "2024"),
        ("data.path=true", "true"),
        ("data.path=a=b", "a=b"),
        ("data.path=[x]", "[x]"),
    ],
)
def test_text_needs_no_quotes(override: str, expected: str) -> None:
    assert parse_config("", [override]).data.path == expected


def test_schedules_fill_in_their_own_parameters() -> None:
    recipe = '[head]\nmargin_schedule = "linear"\nmargin_steps = 7\nscale_schedule = "linear"'
    head = parse_config(recipe).head
    assert (head.margin_start, head.margin_steps, head.scale_start) == (0.0, 7, 16.0)
    assert parse_config(parse_config(recipe).to_toml()).head == head
    assert parse_config(recipe, ["head.scale_schedule=constant"]).head.scale_start is None
    annealed = parse_config(
        recipe, ["head.margin=sphereface", "head.margin_schedule=sphereface"]
    ).head
    assert (annealed.annealing, annealed.annealing_base, annealed.margin_steps) == (5, 1000, None)
    warmed = parse_config("", ["head.margin=sphereface", "head.margin_schedule=linear"]).head
    assert (warmed.annealing, warmed.margin_start) == (0.0, 1.0)
    other = parse_config(recipe, ["head.margin=magface"]).head
    assert (other.margin_schedule, other.margin_steps) == ("constant", None)


def test_samplers_fill_in_their_own_parameters() -> None:
    recipe = '[head]\nsample_rate = 0.1\nsampler = "hard"\nhard_share = 0.2'
    hard = parse_config(recipe).head
    assert (hard.hard_share, hard.hard_neighbours, hard.strata) == (0.2, 10, None)
    strata = parse_config(recipe, ["head.sampler=strata"])
    assert (strata.head.hard_share, strata.head.strata) == (None, 8)
    assert parse_config(strata.to_toml()) == strata
    assert parse_config(recipe, ["head.method=full"]) == parse_config("")
    assert parse_config(recipe, ["head.method=partial"]).head == hard
    assert parse_config(recipe, ["head.method=f2c"]) == parse_config("", ["head.method=f2c"])
    assert "sampler is of class centers" in refusal("", "head.method=f2c", "head.sampler=hard")


# Refusals: key, value, expectation, nearest key


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("head.sampel_rate=0.1", ["head.sampel_rate", "did you mean head.sample_rate?"]),
        ("optimzer.momentum=0.9", ["did you mean optimizer.momentum?"]),
        ("train.momentum=0.9", ["head.momentum or optimizer.momentum?"]),
        ("data.synthetic.identities=9", ["did you mean data.synthetic.num_identities?"]),
        ("foo.bar=1", ["foo.bar", "the sections are run, data"]),
        ("head.zzz=1", ["the keys here are method, sample_rate"]),
        ("run.seed=x", ["run.seed", '"x"', "a whole number"]),
        ("run.seed=1.5", ["run.seed", "1.5", "a whole number"]),
        ("run.seed=-1", ["run.seed", "-1", "from 0 to 2^63 - 1"]),
        (f"run.seed={2**63}", ["run.seed", str(2**63), "from 0 to 2^63 - 1"]),
        ("run.compile=1", ["run.compile", "true or false"]),
        ("run.device=gpu", ["run.device", "'cuda:N'"]),
        ("run.name=a/b", ["run.name", "without slashes"]),
        ("run.name=..", ["run.name"]),
        ("run.name= ", ["run.name", "a folder name"]),
        ("run.name=. .", ["run.name"]),
        (
            "data.min_images_per_identity=2",
            ["data.min_images_per_identity is 2", "'synthetic'", "images_per_identity"],
        ),
        ("data.synthetic.long_tail=-1", ["data.synthetic.long_tail", "got -1", "[0, 1e+06]"]),
        ("train.batch_size=1", ["train.batch_size", "got 1", "at least 2"]),
        ("train.batch_size=true", ["train.batch_size", "a whole number"]),
        ("head.sample_rate=1.5", ["head.sample_rate", "1.5", "[0, 1]"]),
        ("head.sample_rate=-0.1", ["head.sample_rate", "-0.1", "[0, 1]"]),
        ("head.sample_rate=nan", ["head.sample_rate", "nan"]),
        ("optimizer.learning_rate=inf", ["optimizer.learning_rate", "inf"]),
        ("head.margin=circle", ["'normface', 'cosface', 'arcface', 'combined'"]),
        ("head.dtype=float16", ["head.dtype", '"float16"', "'float32', 'bfloat16'"]),
        ("head.operands=int8", ["head.operands", "'same', 'bfloat16'"]),
        ("head.missed_steps=lazy", ["head.missed_steps", "'lazy-exact'"]),
        ("head.block=0", ["head.block", "at least 1"]),
        ("head.placement=disk", ["head.placement", "'device', 'host', 'file'"]),
        ("head.negatives=hard", ["head.negatives", "'curricular', 'mv'"]),
        ("head.label_smoothing=1.0", ["head.label_smoothing", "[0, 1)"]),
        ("evaluation.fars=[0.1, 2]", ["evaluation.fars", "got 2"]),
        ("evaluation.fars=0.1", ["evaluation.fars", "a list"]),
        ("head=3", ["section.key=value"]),
        ("data.sets.path=x", ["--set data.sets.path=x", "write it in the recipe"]),
        ("data.sets=[]", ["a list of tables", "write it in the recipe"]),
        ("head.m", ["section.key=value"]),
        ("=3", ["section.key=value"]),
        ("data.path=\udcff", ["data.path", "UTF-8"]),
    ],
)
def test_wrong_override(override: str, words: list[str]) -> None:
    message = refusal("", override)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("seed = 1", ["seed: unknown key", "run.seed"]),
        ("[bakbone]", ["bakbone", "did you mean backbone?"]),
        ("head = 3", ["head: got 3", "[head]"]),
        ("[data]\nsynthetic = 3", ["data.synthetic: got 3", "[data.synthetic]"]),
        ('[run]\nseed = "3"', ["run.seed", '"3"', "a whole number"]),
        ("[run]\nseed =\n", ["not valid TOML", "line 2"]),
        ("[run]\nname = 3", ["run.name: got 3"]),
        ("[[data.sets]]\nweight = 1.0", ["data.sets.path: missing"]),
        ('[[data.sets]]\npath = "a"\nwieght = 1.0', ["did you mean data.sets.weight?"]),
        ('[[data.sets]]\npath = "a"\nweight = -1.0', ["data.sets.weight", "above 0"]),
        ('[data]\nsets = ["a"]', ["data.sets: got", "[[data.sets]]"]),
        ("[data]\nsets = 3", ["data.sets: got 3", "[[data.sets]]"]),
    ],
)
def test_wrong_recipe(recipe: str, words: list[str]) -> None:
    message = refusal(recipe)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ('[head]\nmethod = "full"\nsample_rate = 0.1', ["head.sample_rate is 0.1", "full"]),
        ('[head]\nmargin = "normface"\nm = 0.3', ["head.m ", "cosface and arcface", "normface"]),
        ("[head]\nm2 = 0.3", ["head.m2", "combined", "cosface"]),
        ("[head]\nblock = 8", ["head.block is of method 'partial'", "'full'"]),
        ('[head]\noptimizer = "adamw"\nmomentum = 0.5', ["head.momentum", "'sgd'", "'adamw'"]),
        (
            '[head]\noptimizer = "adamw"\nmissed_steps = "decay-only"',
            ["head.missed_steps belongs to optimizer 'sgd'"],
        ),
        ("[head]\nrow_wise_second_moment = true", ["head.row_wise_second_moment", "'adamw'"]),
        ('[head]\nplacement = "file"', ["placement_folder is missing", "a folder"]),
        ('[head]\nplacement_folder = "x"', ["'device'", "placement_folder is given"]),
        (
            '[head]\nplacement = "host"\nplacement_folder = "x"',
            ["'host'", "placement_folder is given"],
        ),
        ('[head]\ngradient = "exact"', ["head.gradient", "arcface and combined"]),
        (
            '[head]\nnegatives = "mv"\nnegatives_threshold = 0.3',
            ["belongs to negatives interclass"],
        ),
        ('[head]\nmethod = "f2c"\nmargin = "adaface"', ["margin 'adaface'", "method 'f2c' yet"]),
        ('[head]\nmethod = "f2c"\nnegatives = "mv"', ["negatives 'mv'", "method 'f2c' yet"]),
        ('[head]\nmethod = "virtual"\nlabel_smoothing = 0.1', ["label_smoothing 0.1", "'virtual'"]),
        ('[head]\nmethod = "f2c"\nsub_centers = 3', ["sub_centers 3", "method 'f2c' yet"]),
        ("[head]\nmargin_steps = 4", ["margin_steps belongs to margin_schedule linear"]),
        (
            '[head]\nmargin = "magface"\nmargin_schedule = "linear"',
            ["head.margin_schedule 'linear' changes m", "cosface or arcface"],
        ),
        ('[head]\nmargin_schedule = "sphereface"', ["annealing", "expected margin sphereface"]),
        (
            '[head]\nmethod = "f2c"\nscale_schedule = "linear"',
            ["scale_schedule 'linear'", "'f2c' yet"],
        ),
        ('[head]\nsampler = "hard"', ["head.sampler is 'hard'", "method is 'full'"]),
        ('[head]\nsample_rate = 0.1\nsampler = "hard"\nblock = 4', ["head.block", "'hard'"]),
        ("[head]\nsample_rate = 0.1\nstrata = 4", ["strata belongs to sampler strata"]),
        ("[schedule]\nsteps = 3\nepochs = 3", ["schedule.epochs", "steps", "expected one"]),
        ("[schedule]\nsteps = 3\nwarmup_steps = 4", ["schedule.warmup_steps (4)", "3 steps"]),
        ("[schedule]\nepochs = 3\nwarmup_epochs = 4", ["warmup_epochs (4)", "3 epochs"]),
        ("[schedule]\nwarmup_epochs = 21", ["warmup_epochs (21)", "20 epochs"]),
        ("[schedule]\nwarmup_epochs = 1\nwarmup_steps = 4", ["warmup_steps", "expected one"]),
        ('[optimizer]\nname = "adamw"\nmomentum = 0.5', ["optimizer.momentum", "sgd"]),
        ("[optimizer]\nmomentum = 0.0\nnesterov = true", ["optimizer.nesterov", "momentum"]),
        ("[evaluation]\nevery_epochs = 1\nevery_steps = 9", ["every_steps", "expected one"]),
        ('[evaluation]\npairs = "synthetic"\npath = "x"', ["evaluation.path", "synthetic"]),
        (
            '[data]\npath = "a"\n[evaluation]\npath = "x"',
            ["evaluation.path", "set evaluation.pairs"],
        ),
        ('[evaluation]\npath = "x"', ["evaluation.path", "set evaluation.pairs"]),
        ('[data]\npeople = "x.txt"', ["data.people", "synthetic"]),
        ('[data]\npath = "a"\n[[data.sets]]\npath = "b"', ["data.path is given beside sets"]),
        (
            '[[data.sets]]\npath = "a"\nweight = 1.0\n[[data.sets]]\npath = "b"',
            ["data.sets: 1 of 2 have a weight", "all of them one, or none"],
        ),
        ('[[data.sets]]\npath = "synthetic"', ["data.sets.path is 'synthetic'", "without sets"]),
        (
            '[[data.sets]]\npath = "a"\nhead = "own"\n[head]\nmethod = "f2c"',
            ["data.sets: a set has head 'own'", "'f2c'", "'common'"],
        ),
        (
            '[data]\nbatches = "pairs"\n[head]\nmethod = "f2c"',
            ["data.batches is 'pairs'", "pool.identity_share"],
        ),
        (
            '[data]\nbatches = "pairs"\n[[data.sets]]\npath = "a"\nhead = "own"',
            ["data.batches is 'pairs'", "'common'"],
        ),
    ],
)
def test_impossible_combination(recipe: str, words: list[str]) -> None:
    message = refusal(recipe)
    assert all(word in message for word in words), message


def test_each_mistake_has_a_line_of_its_own() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config('[run]\nseed = "x"\n[head]\nscale = 0', source="mine.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("mine.toml: ") for line in lines)


def test_a_wrong_override_is_not_blamed_on_the_recipe() -> None:
    recipe = '[run]\nseed = "x"'
    with pytest.raises(ConfigError) as caught:
        parse_config(recipe, ["head.m=abc", "evaluation.path=faces"], source="mine.toml")
    wrong_seed, wrong_m = str(caught.value).splitlines()
    assert wrong_seed.startswith("mine.toml: run.seed: got")
    assert wrong_m.startswith('--set head.m: got "abc", expected a number')
    with pytest.raises(ConfigError, match=r"^--set evaluation.path is given without"):
        parse_config("", ["evaluation.path=faces"], source="mine.toml")


def test_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    (tmp_path / "photo.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "photo.toml")


# Frozen surfaces


def test_reference_page_is_current() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == render_page(Config), "run: python -m manyface.config > docs/config.md"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_shipped_recipe_is_valid(path: Path) -> None:
    tomllib.loads(path.read_text(encoding="utf-8"))
    load_config(path)


def test_slots_and_ratio_are_alternatives():
    recipe = "[head]\nmethod = 'f2c'\n[pool]\nratio = 0.2\n"
    by_slots = parse_config(recipe, ["pool.slots=50"])
    assert (by_slots.pool.slots, by_slots.pool.ratio) == (50, None)
    by_ratio = parse_config(by_slots.to_toml(), ["pool.ratio=0.3"])
    assert (by_ratio.pool.slots, by_ratio.pool.ratio) == (None, 0.3)


def test_partial_keeps_the_sample_rate_of_an_f2c_recipe_file():
    recipe = "[head]\nmethod = 'f2c'\nsample_rate = 0.6\n[pool]\nratio = 0.2\n"
    assert parse_config(recipe, ["head.method=partial"]).head.sample_rate == 0.6


def test_virtual_refuses_what_only_f2c_reads():
    recipe = "[head]\nmethod = 'f2c'\n[pool]\nprefill = true\nfeatures = 2\n"
    assert not parse_config(recipe, ["head.method=virtual"]).pool.prefill
    with pytest.raises(ConfigError, match=r"pool.prefill is of head.method 'f2c'"):
        parse_config("", ["head.method=virtual", "pool.prefill=true"])


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 3000, "{a = " * 3000])
def test_numbers_and_brackets_without_end_are_mistakes_like_others(value: str) -> None:
    with pytest.raises(ConfigError, match="not valid TOML"):
        parse_config(f"[run]\nseed = {value}")
    with pytest.raises(ConfigError, match=r"run\.seed"):
        parse_config("", [f"run.seed={value}"])
