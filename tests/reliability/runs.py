"""A tiny recipe, and what a run of it has left on the disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from manyface.checkpoint import committed, export_weights, load, newest, step_of
from manyface.checkpoint.stream import raw_bytes
from manyface.observe import read_events
from manyface.parallel import ALONE

RECIPE = """
[run]
name = "run"
device = "cpu"
precision = "fp32"
threads = 1
[data]
image_size = 32
threads = 1
[data.synthetic]
num_identities = 24
images_per_identity = 3
[backbone]
name = "tiny"
embedding_size = 16
[head]
scale = 16.0
sample_rate = 0.4
[optimizer]
learning_rate = 0.05
[augmentation]
shift = 2.0
[train]
batch_size = 8
log_every = 1
[evaluation]
num_pairs = 40
num_identities = 30
folds = 2
"""


@dataclass(frozen=True)
class Tiny:
    """A run of the recipe in `folder`.

    Attributes:
        steps, every, evaluate: updates in all, between checkpoints, between evaluations.
        more: other settings, as --set takes them.
    """

    folder: Path
    steps: int = 120
    every: int = 5
    evaluate: int = 50
    more: tuple[str, ...] = ()

    def words(self, *more: str) -> list[str]:
        """The command line that goes on with it, or begins it; `more` settings of this attempt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        recipe = self.folder / "tiny.toml"
        recipe.write_text(RECIPE)
        settings = [
            f"run.directory={self.folder}",
            f"schedule.steps={self.steps}",
            f"train.checkpoint_every={self.every}",
            f"evaluation.every_steps={self.evaluate}",
            *self.more,
            *more,
        ]
        options = [word for setting in settings for word in ("--set", setting)]
        return ["train", str(recipe), "--resume-or-start", "--quiet", *options]

    @property
    def directory(self) -> Path:
        """Of the run."""
        return self.folder / "run"

    @property
    def checkpoints(self) -> Path:
        """Of its checkpoints."""
        return self.directory / "checkpoints"

    @property
    def newest(self) -> int:
        """Step of the newest committed checkpoint; -1 without one."""
        found = newest(self.checkpoints)
        return -1 if found is None else step_of(found) or 0

    @property
    def is_done(self) -> bool:
        """Whether it has its result."""
        return (self.directory / "result.json").exists()

    def events(self) -> list[dict[str, object]]:
        """All lines of its log, those of superseded steps too."""
        path = self.directory / "events.jsonl"
        return read_events(path, superseded=True) if path.exists() else []

    def last_step(self) -> int:
        """The last update that any attempt has logged since the last start; -1 without one."""
        steps = -1
        for event in self.events():
            if event["kind"] in ("start", "step"):
                steps = int(str(event["step"]))
        return steps

    def has_begun(self) -> int:
        """How many attempts came as far as their first step."""
        return sum(event["kind"] == "start" for event in self.events())

    def losses(self) -> list[tuple[int, str]]:
        """Step and loss, all digits, of the run as it counts."""
        path = self.directory / "events.jsonl"
        return [(e["step"], e["loss"].hex()) for e in read_events(path) if e["kind"] == "step"]

    def differing(self, expected: dict[int, str]) -> int:
        """How many loss lines of all attempts, superseded ones too, are not `expected`."""
        lines = [event for event in self.events() if event["kind"] == "step"]
        return sum(float(str(e["loss"])).hex() != expected[int(str(e["step"]))] for e in lines)

    def check(self) -> list[str]:
        """What is wrong with its checkpoints: every committed one must verify."""
        wrong = []
        for path in committed(self.checkpoints):
            try:
                load(path, ranks=ALONE)
            except Exception as error:
                wrong.append(f"{path.name}: {error}")
        noted = [int(str(e["step"])) for e in self.events() if e["kind"] == "checkpoint"]
        if noted and max(noted) > self.newest:
            wrong.append(f"step {max(noted)} was committed, {self.newest} is the newest")
        wrong += [f"put aside: {path.name}" for path in self.checkpoints.glob("damaged-*")]
        return wrong

    def digest(self) -> str:
        """SHA-256 of the exported model and of every tensor of the last checkpoint, tables too."""
        path = newest(self.checkpoints)
        assert path is not None
        export_weights(path, self.folder / "model.safetensors")
        total = hashlib.sha256((self.folder / "model.safetensors").read_bytes())
        checkpoint = load(path, ranks=ALONE)
        for group in sorted(checkpoint.tensors):
            for name, value in sorted(checkpoint.group(group).items()):
                whole = value if isinstance(value, Tensor) else value.rows(0, value.shape[0])
                total.update(f"{group} {name} {whole.dtype} {tuple(whole.shape)}".encode())
                for piece in raw_bytes(whole):
                    total.update(piece)
        return total.hexdigest()
