"""A checkpoint, or a part of it, in other files; streamed, so that memory stays small."""

from pathlib import Path

from manyface.base.errors import CheckpointError
from manyface.checkpoint.layout import MANIFEST_NAME
from manyface.checkpoint.load import load
from manyface.checkpoint.save import replace_with, save
from manyface.checkpoint.stream import safetensors_chunks


def merge(path: Path, directory: Path) -> Path:
    """Commit what the checkpoint `path` holds in `directory`, one file a group; the new path.

    All is verified first. What is resumed from the one is resumed from the other.
    """
    new = directory / path.name
    if new.exists():
        raise CheckpointError(f"{new} exists already: name another folder, or move it away")
    checkpoint = load(path)
    return save(
        directory,
        step=checkpoint.step,
        tensors={group: checkpoint.group(group) for group in checkpoint.tensors},
        state=checkpoint.state,
    )


def export_weights(path: Path, output: Path) -> str:
    """Write the weights of the net in the checkpoint `path` to one safetensors file.

    Those of the averaged net where there is one; its metadata says that the net takes RGB. Returns
    the name of the group they were in. A file that is there already is replaced, in one go. Raises
    CheckpointError; OSError naming the file.
    """
    if (output.parent / MANIFEST_NAME).exists():
        raise CheckpointError(
            f"{output} would lie in the checkpoint {output.parent}, which would be refused then: "
            "choose another place"
        )
    checkpoint = load(path, groups=("averaged", "backbone"))
    group = next((name for name in ("averaged", "backbone") if name in checkpoint.tensors), None)
    if group is None:
        raise CheckpointError(f"{path} holds no net: it has no group 'backbone'")
    replace_with(output, safetensors_chunks(checkpoint.group(group), {"colour": "RGB"}))
    return group
