"""What people and their photos are called where their names become those of files.

Photos keep the names that they have, made safe (naming.py); two of one name get numbers, numbers
leading zeros, because readers of folders sort names as text, and names without the suffix of an
image that of their content.
"""

from functools import lru_cache

from manyface.data.records import Records
from manyface.data.records.indexed import num_numbered
from manyface.data.records.naming import (
    is_image_name,
    padded_numbers,
    person_name,
    suffix_of_content,
    unique_names,
)


class FileNames:
    """Names of the people of `records`, and of each record.

    Args:
        sorts_people: readers of the new set number people by their names.
    """

    def __init__(self, records: Records, *, sorts_people: bool) -> None:
        self._records = records
        names = [person_name(name) for name in records.identity_names]
        people = unique_names(names)
        if sorts_people:
            people = list(padded_numbers(people))
        self.people = records.identity_names if people == names else people
        self._of_person = lru_cache(maxsize=64)(self._names_of)
        # Names that are numbers sort as they should when they have one length.
        numbered = num_numbered(records)
        self._digits = len(str(numbered)) if numbered else 0

    def of(self, record: int, person: int, image: bytes) -> str:
        """The name of a record, with the suffix of an image."""
        first = int(self._records.first_images[person])
        name = self._of_person(person)[record - first]
        if is_image_name(name):
            return name
        return name + (suffix_of_content(image[:16]) or ".jpg")

    def _names_of(self, person: int) -> list[str]:
        first, end = self._records.first_images[person : person + 2].tolist()
        names = [self._records.file_name(i).zfill(self._digits) for i in range(first, end)]
        unique = unique_names(names)
        stems = {name.rpartition(".")[0] for name in unique if is_image_name(name)}
        # A name without suffix will get one, and must not become another's.
        return [
            name if is_image_name(name) or name not in stems else f"{name}-{i}"
            for i, name in enumerate(unique)
        ]
