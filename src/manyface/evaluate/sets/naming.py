"""Sets as users name them: a path, or KIND=PATH.

lfw.bin              insightface's verification set
pairs=FILE           pairs: LFW's list, or lines of path, path, 1 or 0
all=PATH             a set of people, every image against every other
gallery=DIR          DIR/gallery, DIR/probe, perhaps DIR/distractors: who is it?
ijbc=DIR, ijbb=DIR   IJB-B and IJB-C as published: DIR/meta, DIR/loose_crop
"""

from dataclasses import dataclass
from pathlib import Path

from manyface.base.errors import ConfigError

KINDS = ("bin", "pairs", "all", "gallery", "ijbb", "ijbc")


@dataclass(frozen=True)
class SetName:
    """Attributes:
    kind: one of KINDS.
    path: of the file or folder.
    """

    kind: str
    path: Path

    @property
    def name(self) -> str:
        """What results call it."""
        return self.path.name if self.kind in ("all", "gallery") else self.path.stem


def parse_set(text: str) -> SetName:
    """Of one word of the command line.

    Raises:
        ConfigError: an unknown kind, or a path that is not there.
    """
    before, sign, after = text.partition("=")
    is_path = not sign or Path(text).exists()
    kind, path = ("", text) if is_path else (before, after)
    if kind and kind not in KINDS:
        raise ConfigError(f"{text!r}: no kind {kind!r} of sets; there are {', '.join(KINDS)}")
    found = Path(path).expanduser()
    if not found.exists():
        raise ConfigError(f"no such set: {found} (looked in {Path.cwd()})")
    if not kind and found.suffix != ".bin":
        raise ConfigError(
            f"{text!r}: say what kind of set it is: one of "
            + ", ".join(f"{each}={path}" for each in KINDS)
        )
    return SetName(kind or "bin", found)
