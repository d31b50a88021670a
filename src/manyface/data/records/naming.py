"""What counts as an image file, and how a person is called.

Names of people are compared after Unicode normalisation (NFC): an archive made on a Mac spells
"José" with five code points, a list typed elsewhere with four, and both mean one person.
"""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePath

from manyface.base.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".pgm", ".ppm", ".pnm", ".tif", ".tiff")
)

UNREAD_SUFFIXES = frozenset(
    (".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".dng", ".cr2", ".nef", ".arw", ".raw")
)


def is_hidden(name: str) -> bool:
    """Files and folders that systems leave behind: .DS_Store, ._image.jpg, __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def is_image_name(name: str) -> bool:
    """By suffix, any case; the content is judged when it is decoded."""
    return name[name.rfind(".") :].lower() in IMAGE_SUFFIXES


def suffix_of(name: str) -> str:
    """In lower case with its dot; "no suffix" without one."""
    return name[name.rfind(".") :].lower() if "." in name else "no suffix"


def number_at_end(file_name: str) -> int | None:
    """The number that a file name ends in, before its suffix, by which lists of pairs call it."""
    digits = re.search(r"(\d+)$", PurePath(file_name).stem)
    return int(digits[1]) if digits else None


def is_left_out(suffix: str, *, among_images: bool) -> bool:
    """Whether a file that is no image is worth a word: it lies among images, or is a photo."""
    return among_images or suffix in UNREAD_SUFFIXES


def left_out_warning(others: Counter[str], where: str) -> str | None:
    """One line on files among the images, by suffix, that are no images or not read; else None."""
    if not others:
        return None
    suffixes = ", ".join(f"{suffix}: {count}" for suffix, count in sorted(others.items()))
    advice = "; convert photos to JPEG" if UNREAD_SUFFIXES & others.keys() else ""
    return f"{where}: {others.total()} files are left out, they are no images ({suffixes}){advice}"


def person_name(raw: str) -> str:
    """The printable, comparable form of a folder name or label."""
    readable = os.fsencode(raw).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", readable)


def people_of_folders(folders: Sequence[str]) -> list[str]:
    """Names for folders ("lfw/Ann", "lfw/Bob" -> "Ann", "Bob"): shared parents are cut."""
    parents = [folder.split("/")[:-1] for folder in folders]
    num_shared = _num_shared(min(parents), max(parents)) if parents else 0
    return [person_name("/".join(folder.split("/")[num_shared:])) for folder in folders]


def _num_shared(low: list[str], high: list[str]) -> int:
    """Leading parts that the smallest and the largest path share, and so all between them."""
    for i, (a, b) in enumerate(zip(low, high, strict=False)):
        if a != b:
            return i
    return min(len(low), len(high))


def check_distinct(names: Sequence[str], where: str) -> None:
    """Two folders that read the same would become two classes of one person: refuse."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                f"{where}: two folders have the same name {name!r} once Unicode spelling is "
                f"evened out; merge them or rename one"
            )
        seen.add(name)


def padded_numbers(names: Sequence[str]) -> Sequence[str]:
    """`names` with leading zeros, if they are numbers that lie in order and would not as text.

    Readers of folders sort people as text, where "10" comes before "2"; with zeros they keep their
    labels, and a head that was trained on these still fits.
    """
    if not all(name.isascii() and name.isdigit() for name in names):
        return names
    width = max(map(len, names), default=0)
    padded = [name.zfill(width) for name in names]
    ascending = all(one < other for one, other in pairwise(padded))
    return padded if ascending else names


_CONTENTS = (
    (b"\xff\xd8", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"RIFF", ".webp"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tiff"),
    (b"MM\0*", ".tiff"),
    (b"P5", ".pgm"),
    (b"P6", ".ppm"),
)


def suffix_of_content(head: bytes) -> str | None:
    """The suffix of an image file that begins with `head`; None if it is of no known kind."""
    return next((suffix for magic, suffix in _CONTENTS if head.startswith(magic)), None)


_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@,()-]{0,99}")
_UNSAFE_KINDS = frozenset(("Cc", "Cs", "Zl", "Zp"))  # control characters, all ends of lines
_MAX_NAME_BYTES, _SHORTENED_BYTES = 200, 160  # in between is room for a number and a suffix


def safe_name(raw: str) -> str:
    """What a file or folder may be called that is to be named `raw`, from wherever that came.

    One part of a path, of one line, neither hidden nor too long; most names stay as they are, and
    what comes out stays as it is.
    """
    if _SAFE.fullmatch(raw) and not is_hidden(raw):
        return raw
    text = os.fsencode(raw).decode("utf-8", "backslashreplace")
    kinds = map(unicodedata.category, text)
    text = "".join(
        "_" if sign in "/\\" or kind in _UNSAFE_KINDS else sign
        for sign, kind in zip(text, kinds, strict=True)
    )
    inner = text.strip()  # readers of lists strip the labels
    begin = text.index(inner) if inner else 0
    text = "_" * begin + inner + "_" * (len(text) - begin - len(inner))
    if not text or is_hidden(text) or text.startswith("#"):  # a comment in a list
        text = f"_{text}"
    return text if len(text.encode()) <= _MAX_NAME_BYTES else _shortened(text)


def _shortened(text: str) -> str:
    suffix = suffix_of(text) if is_image_name(text) else ""
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    cut = text.encode()[: _SHORTENED_BYTES - len(digest) - len(suffix) - 1]
    return f"{cut.decode(errors='ignore').rstrip()}-{digest}{suffix}"


def unique_names(names: Sequence[str]) -> list[str]:
    """`names`, made safe; of several that are the same, all but the first get numbers."""
    wanted = [safe_name(name) for name in names]
    taken, unique = set(wanted), []
    seen: set[str] = set()
    for name in wanted:
        number, other = 2, name
        while other in seen or (other != name and other in taken):
            stem, suffix = (name.rpartition(".")[0], name[name.rfind(".") :])
            other = f"{stem}-{number}{suffix}" if is_image_name(name) else f"{name}-{number}"
            number += 1
        seen.add(other)
        unique.append(other)
    return unique
