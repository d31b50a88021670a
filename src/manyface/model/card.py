"""What a file says of the model in it: one JSON text, the same in a bundle and in ONNX.

Specification: docs/formats/bundle.md. A reader takes nothing on trust: unknown or missing keys,
other types and other versions are errors, before any tensor is read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from manyface.backbones.recognise import Architecture
from manyface.base.errors import CheckpointError, ManyfaceError
from manyface.model.preprocessing import Preprocessing
from manyface.model.threshold import Threshold

KEY = "manyface"  # in the metadata of either file
FORMAT, VERSION = "manyface-model", 1

_WRONG = (ValueError, TypeError, KeyError, OverflowError, RecursionError)
_NUMBER = (int, float)
_TEXT_OR_NONE, _COUNT = (str, type(None)), (int,)
_FIELDS: Mapping[str, tuple[type, ...]] = {
    "format": (str,),
    "version": _COUNT,
    "name": (str,),
    "architecture": (dict,),
    "preprocessing": (dict,),
    "threshold": (dict, type(None)),
    "provenance": (dict,),
    "license": _TEXT_OR_NONE,
    "weights": (str,),
    "fingerprint": (str,),
    "graph": _TEXT_OR_NONE,
}
_ARCHITECTURE = {
    "name": (str,),
    "embedding_size": _COUNT,
    "image_size": _COUNT,
    "options": (dict,),
}
_PREPROCESSING = {
    "image_size": _COUNT,
    "colour": (str,),
    "mean": (list,),
    "std": (list,),
    "template": (str,),
    "flip": (bool,),
}
_OF_BLOCKS, _MOST_BLOCKS = ("depth", "depths", "blocks"), 1000  # each is built before it is refused
_THRESHOLD = {
    "value": _NUMBER,
    "far": _NUMBER,
    "tar": _NUMBER,
    "measured_on": (str,),
    "num_same": _COUNT,
    "num_different": _COUNT,
}


@dataclass(frozen=True)
class Card:
    """A model without its tensors.

    Attributes:
        architecture: the net, and its sizes.
        provenance: where the weights come from.
        license: what may be done with them; None: nobody has said.
        weights: hash of the tensors (fingerprint.py).
        fingerprint: of the trained model.
        graph: in ONNX, hash of the tensors of the graph.
    """

    name: str
    architecture: Architecture
    preprocessing: Preprocessing
    weights: str
    fingerprint: str
    threshold: Threshold | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    license: str | None = None
    graph: str | None = None

    def to_json(self) -> str:
        """The text; equal cards give equal texts."""
        net = self.architecture
        body = {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "architecture": {
                "name": net.name,
                "embedding_size": net.embedding_size,
                "image_size": net.image_size,
                "options": dict(net.options),
            },
            "preprocessing": self.preprocessing.to_json(),
            "threshold": self.threshold and self.threshold.to_json(),
            "provenance": dict(self.provenance),
            "license": self.license,
            "weights": self.weights,
            "fingerprint": self.fingerprint,
            "graph": self.graph,
        }
        return json.dumps(body, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> "Card":
        """The card whose text the file `where` holds.

        Raises:
            CheckpointError: it is of another version, or not as specified.
        """
        try:
            return _parse(_read_object(text, where), where)
        except CheckpointError:
            raise
        except (*_WRONG, ManyfaceError) as error:
            raise CheckpointError(f"{where} is damaged: what it says of itself: {error}") from error


def _read_object(text: str, where: str) -> dict[str, Any]:
    body = json.loads(text, parse_constant=_refuse)
    if not isinstance(body, dict):
        raise ValueError(f"expected an object, got {type(body).__name__}")
    version = (body.get("format"), body.get("version"))
    if version != (FORMAT, VERSION):
        raise CheckpointError(
            f"{where}: expected {FORMAT} version {VERSION}, got {version[0]} version {version[1]}; "
            "read it with the manyface that wrote it, or export it again"
        )
    return body


def _parse(body: dict[str, Any], where: str) -> Card:
    _check(body, _FIELDS, "the model")
    net, feed, threshold = body["architecture"], body["preprocessing"], body["threshold"]
    _check(net, _ARCHITECTURE, "architecture")
    _check(feed, _PREPROCESSING, "preprocessing")
    if threshold is not None:
        _check(threshold, _THRESHOLD, "threshold")
    if net["image_size"] != feed["image_size"]:
        raise ValueError(
            f"the net takes {net['image_size']} pixels and images have {feed['image_size']}"
        )
    if any(len(feed[key]) != 3 or not all(map(_is_number, feed[key])) for key in ("mean", "std")):
        raise ValueError("mean and std must be three numbers each")
    return Card(
        name=body["name"],
        architecture=Architecture(**{**net, "options": _options(net["options"])}),
        preprocessing=Preprocessing.from_json(feed),
        weights=body["weights"],
        fingerprint=body["fingerprint"],
        threshold=threshold and Threshold(**_floats(threshold)),
        provenance=body["provenance"],
        license=body["license"],
        graph=body["graph"],
    )


def _check(found: Mapping[str, Any], fields: Mapping[str, tuple[type, ...]], what: str) -> None:
    if wrong := sorted(found.keys() ^ fields.keys()):
        state = "unknown" if wrong[0] in found else "missing"
        raise ValueError(f"{wrong[0]!r} of {what} is {state}")
    for key, kinds in fields.items():
        value = found[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{key!r} of {what} is {type(value).__name__}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _floats(found: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as floats where they are no counts: JSON writes 1.0 as 1 too."""
    return {k: float(v) if _THRESHOLD[k] == _NUMBER else v for k, v in found.items()}


def _options(found: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as the tuples that they were; nothing that could build a net of any size."""
    for name, value in found.items():
        numbers = value if isinstance(value, list) else [value]
        counts = [n for n in numbers if _is_number(n)]
        too_many = name in _OF_BLOCKS and sum(counts) > _MOST_BLOCKS
        if len(numbers) > 16 or too_many or not all(0 <= n <= 4096 for n in counts):
            raise ValueError(f"option {name!r} of the architecture is {value!r}")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool)
