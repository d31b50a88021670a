"""Who is it? Probes searched for in a gallery, perhaps among people who are nobody's mates.

    DIR/gallery      one folder per person, or any other set of people
    DIR/probe        the same; people who are not in the gallery are strangers (open set)
    DIR/distractors  any set: nobody in it is in the other two

People of one name are one person. TinyFace is such a set, and MegaFace is one of probes and
distractors alone.
"""

from collections.abc import Collection, Sequence

import numpy as np

from manyface.base.errors import DataError
from manyface.data.source import ImageSource, Int64Array
from manyface.evaluate.blocks import Float32Array
from manyface.evaluate.identification import (
    check_megaface,
    identification_result,
    megaface_result,
)
from manyface.evaluate.overlap import plain_name
from manyface.evaluate.sets.base import JudgedSet, Judgement, Part, Show

RANKS = (1, 5, 10, 20)
FPIRS = (0.1, 0.01, 0.001)
FOLDERS = ("probe", "gallery", "distractors")


class JudgedGallery(JudgedSet):
    """Probes, a gallery, and distractors or None.

    Args:
        notes: what else the reader has to know.
    """

    def __init__(
        self,
        probes: ImageSource,
        gallery: ImageSource,
        distractors: ImageSource | None,
        *,
        name: str,
        device: str = "cpu",
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self._sources = [probes, gallery, *([] if distractors is None else [distractors])]
        self._device = device
        self._label_of = {person: i for i, person in enumerate(gallery.identity_names)}
        if not any(person in self._label_of for person in probes.identity_names):
            raise DataError(
                f"{name}: none of the {probes.num_identities} people of the probes is in the "
                "gallery; people of one name are one person"
            )
        self._notes = [*notes, *_strangers(probes.identity_names, self._label_of)]

    @property
    def parts(self) -> Sequence[Part]:
        return [Part.whole(source) for source in self._sources]

    def judge(self, features: Sequence[Float32Array], show: Show) -> Judgement:
        probes, gallery = self._sources[:2]
        blocks = [(features[1], Part.whole(gallery).labels)]
        others = [(part, None) for part in features[2:]]
        result = identification_result(
            features[0],
            self._labels_of_probes(probes),
            [*blocks, *others],
            name=self.name,
            ranks=RANKS,
            fpirs=FPIRS,
            device=self._device,
            progress=show("searching"),
        )
        result.notes.extend(self._notes)
        return Judgement([result])

    def _labels_of_probes(self, probes: ImageSource) -> Int64Array:
        """As in the gallery; strangers get numbers behind it."""
        first_stranger = len(self._label_of)
        of_people = np.array(
            [
                self._label_of.get(person, first_stranger + number)
                for number, person in enumerate(probes.identity_names)
            ],
            np.int64,
        )
        return of_people[Part.whole(probes).labels]


def _strangers(probes: Sequence[str], gallery: Collection[str]) -> list[str]:
    """Notes of people of the probes who are not in the gallery, and of names that are only spelled
    in another way there."""
    strangers = [person for person in probes if person not in gallery]
    if not strangers:
        return []
    spelled = {plain_name(person): person for person in gallery}
    nearly = [person for person in strangers if plain_name(person) in spelled]
    found = [f"{len(strangers)} of {len(probes)} people of the probes are not in the gallery"]
    if nearly:
        there = spelled[plain_name(nearly[0])]
        found.append(
            f"{len(nearly)} of these are there in another spelling (as {nearly[0]!r} and {there!r})"
            " and count as strangers: people of one name are one person"
        )
    return found


class JudgedDistractors(JudgedSet):
    """MegaFace-like: every two images of a person among distractors, who are none of the people.

    Raises:
        DataError: no person has two images, or more scores would have to be kept than there is room
            for.
    """

    def __init__(
        self,
        probes: ImageSource,
        distractors: ImageSource,
        *,
        name: str,
        fars: Sequence[float],
        device: str = "cpu",
    ) -> None:
        self.name = name
        self._sources, self._fars, self._device = [probes, distractors], fars, device
        check_megaface(Part.whole(probes).labels, len(distractors), fars, name)

    @property
    def parts(self) -> Sequence[Part]:
        return [Part.whole(source) for source in self._sources]

    def judge(self, features: Sequence[Float32Array], show: Show) -> Judgement:
        result = megaface_result(
            features[0],
            Part.whole(self._sources[0]).labels,
            features[1:],
            name=self.name,
            fars=self._fars,
            device=self._device,
            progress=show("searching"),
        )
        return Judgement([result])
