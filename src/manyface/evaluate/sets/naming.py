"""Sets as users name them: a path, or KIND=PATH.

lfw.bin              insightface's verification set
pairs=FILE           pairs: LFW's list, or lines of path, path, 1 or 0
all=PATH             a set of people, every image against every other
gallery=DIR          DIR/gallery, DIR/probe, perhaps DIR/distractors: who is it?
megaface=DIR         DIR/probe and DIR/distractors: every two images of a person among these
tinyface=DIR         TinyFace as published, its photos aligned
ijbc=DIR, ijbb=DIR   IJB-B and IJB-C as published: DIR/meta, DIR/loose_crop
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from manyface.base.errors import ConfigError

KINDS = ("bin", "pairs", "all", "gallery", "megaface", "tinyface", "ijbb", "ijbc")


@dataclass(frozen=True)
class SetName:
    """Attributes:
    kind: one of KINDS.
    path: of the file or folder.
    called: where its own name is not enough.
    """

    kind: str
    path: Path
    called: str = ""

    @property
    def name(self) -> str:
        """What results call it."""
        path = self.path.resolve() if self.path.name in ("", "..") else self.path
        is_folder = self.kind in ("all", "gallery", "megaface", "tinyface")
        return self.called or (path.name if is_folder else path.stem)


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


def parse_sets(words: Sequence[str]) -> list[SetName]:
    """Of all words of the command line; those of one name are called by kind and path.

    Raises:
        ConfigError: as `parse_set` does, or a set is there twice.
    """
    found = [parse_set(word) for word in words]
    for name, times in Counter((each.kind, each.path.resolve()) for each in found).items():
        if times > 1:
            raise ConfigError(f"the set {name[0]}={name[1]} is named {times} times; once will do")
    same_name = Counter(each.name for each in found)
    return [
        replace(each, called=f"{each.kind}={each.path}") if same_name[each.name] > 1 else each
        for each in found
    ]
