"""The scales of all studies: tiny shows that they work, small is this project's own evidence, paper
has the papers' own runs."""

from manyface.base.errors import ConfigError
from manyface.studies.cells import Scale
from manyface.studies.paper import paper_scale


def find_scale(name: str) -> Scale:
    """The scale of that name; ConfigError names those that there are."""
    if name == "tiny":
        return Scale(
            name="tiny",
            files={"faces": "tiny.toml"},
            people=200,
            steps=8,
            batch=16,
            seeds=1,
            identities={100: 1, 200: 1},
            classes=(10_000, 20_000),
            cells=2,
        )
    if name == "small":
        return Scale(
            name="small",
            files={"faces": "small.toml", "lfw": "lfw.toml"},
            people=10_000,
            steps=2_000,
            batch=64,
            seeds=3,
            identities={1_000: 3, 10_000: 3, 100_000: 1},
            classes=(10_000, 100_000, 1_000_000, 10_000_000, 100_000_000),
            photos={"lfw": ""},
        )
    if name == "paper":
        return paper_scale()
    raise ConfigError(f"scale {name!r}: expected tiny, small or paper")
