"""Recipes and overrides with damage in them (fuzzing.py)."""

import random
from pathlib import Path

from wounds import mutated

from manyface.config import Config, load_config
from manyface.config.render import all_keys

SETS = """
[[data.sets]]
path = "a"
weight = 2.0
[[data.sets]]
path = "b"
weight = 1
head = "own"
"""
FILES = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
RECIPES = [SETS, Config().to_toml(), *(path.read_text() for path in FILES)]
VALUES = ("", "0", "-1", "nan", "inf", "1e400", "9" * 5000, "[]", "[[1, 2], {}]", "{a = 1}",
          "true", '"', "'x'", "synthetic", "f2c", "partial", "\0", "é\ud800", "1979-05-27",
          "0x7fffffffffffffff", "[" * 3000, "auto", "own", "../..", "1.5",
          "{" + "a.b = 1, " * 50 + "}")  # fmt: skip


def make_case(folder: Path, number: int) -> Path:
    rng = random.Random(number)
    text = rng.choice(RECIPES)
    if rng.random() < 0.7:
        text = mutated(text.encode(), rng).decode(errors=rng.choice(("replace", "surrogateescape")))
    path = folder / "recipe.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    keys = [
        *(name for name, _, _ in all_keys(Config)),
        "x",
        "data.sets",
        "head.",
        ".",
        "data.sets.0.path",
        "",
    ]
    lines = [f"{rng.choice(keys)}={rng.choice(VALUES)}" for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.1:
        lines.append(rng.choice(VALUES))
    folder.joinpath("overrides").write_bytes("\n".join(lines).encode(errors="surrogatepass"))
    return path


def read_case(path: Path) -> None:
    """Read, and written down again as a run does."""
    lines = path.with_name("overrides").read_bytes().decode(errors="surrogatepass").split("\n")
    config = load_config(path, [line for line in lines if line])
    config.run_directory  # noqa: B018  it may be asked for
    config.to_toml()
