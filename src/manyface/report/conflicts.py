"""The pages of `manyface data clean`: every conflict as the faces that make it one."""

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from manyface.curate import AlikeCenters, Conflicts
from manyface.data.source import GroupedSource, Int64Array
from manyface.report import html
from manyface.report.document import document, header
from manyface.report.pictures import data_uri

_SHOWN = 60  # cases of a kind
_FACES = 3  # of a person, beside the image in question

_CAN_BE_WRONG = (
    "A net has looked, and a net can be wrong: children, twins and bad photos look like conflicts. "
    "Look through the cases before you drop what they name."
)
_KEEP_PRIVATE = "If these are photographs of real people, keep this page to yourself."


def render_conflicts(
    source: GroupedSource, found: Conflicts, describe: Callable[[int], str]
) -> str:
    """The whole page as text.

    Args:
        describe: where an image lies.
    """
    page = _Page(source, describe)
    limits = found.thresholds
    body = [
        header("manyface data clean", source.name),
        _summary(found),
        page.section(
            "One person under two labels",
            [page.split(*case) for case in zip(*_columns(found.split), strict=True)],
            f"Means of the two that are more alike than {limits.same_person:.2f}, which nine of "
            "ten people reach whose images are dealt into two halves.",
        ),
        page.section(
            "Under the wrong label",
            [page.wrong(*case) for case in zip(*_columns(found.wrong_labels), strict=True)],
            "The image, its own person's other images, and the person it is nearest to: nearer "
            f"than {limits.belongs:.2f}.",
        ),
        page.section(
            "Like nobody",
            [page.stranger(*case) for case in zip(*_columns(found.strangers), strict=True)],
            f"Images whose cosine to their own person is below {limits.by_chance:.2f}.",
        ),
    ]
    return document(source.name, "".join(body))


def render_alike_centers(source: GroupedSource, found: AlikeCenters, *, run: str) -> str:
    """The whole page as text: pairs of labels whose class centers are alike."""
    page, pairs = _Page(source, str), found.pairs
    more = " or more" if found.is_cut else ""
    rows = [["Alike class centers", f"{len(pairs.people)}{more}", f"{found.limit:.3f}"]]
    body = [
        header("manyface data clean", run),
        html.section(
            "What was found",
            html.table(["", "cases", "limit (cosine)"], rows, name="what was found"),
            lead=f"{_CAN_BE_WRONG} {_KEEP_PRIVATE}",
        ),
        page.section(
            "One person under two labels",
            [page.split(*case) for case in zip(*_columns(pairs), strict=True)],
            "The head was taught that these are different people, and still has them near to each "
            f"other: cosine of their class centers {found.limit:.2f} or more.",
        ),
    ]
    return document(run, "".join(body))


def _columns(found: object) -> list[Sequence[object]]:
    return [values[:_SHOWN].tolist() for values in vars(found).values()]


def _summary(found: Conflicts) -> str:
    limits = found.thresholds
    rows = [
        ["One person under two labels", str(len(found.split.people)), f"{limits.same_person:.3f}"],
        ["Under the wrong label", str(len(found.wrong_labels.records)), f"{limits.belongs:.3f}"],
        ["Like nobody", str(len(found.strangers.records)), f"{limits.by_chance:.3f}"],
    ]
    return html.section(
        "What was found",
        html.table(["", "cases", "limit (cosine)"], rows, name="what was found"),
        lead=f"{_CAN_BE_WRONG} {_KEEP_PRIVATE}",
    )


class _Page:
    def __init__(self, source: GroupedSource, describe: Callable[[int], str]) -> None:
        self._source, self._describe = source, describe

    def section(self, name: str, cases: list[str], lead: str) -> str:
        if not cases:
            return ""
        more = f" The first {_SHOWN} are shown." if len(cases) == _SHOWN else ""
        return html.section(name, f'<ul class="cases">{"".join(cases)}</ul>', lead=lead + more)

    def split(self, people: Sequence[int], cosine: float) -> str:
        one, other = people
        return self._case(
            [(self._name(one), self._some_of(one)), (self._name(other), self._some_of(other))],
            f"cosine {cosine:.2f}",
        )

    def wrong(self, record: int, person: int, to_own: float, to_other: float) -> str:
        own = int(self._source.labels(np.array([record]))[0])
        return self._case(
            [
                (self._describe(record), np.array([record])),
                (self._name(own), self._some_of(own, but=record)),
                (self._name(person), self._some_of(person)),
            ],
            f"cosine {to_own:.2f} to its own, {to_other:.2f} to the other",
        )

    def stranger(self, record: int, to_own: float) -> str:
        own = int(self._source.labels(np.array([record]))[0])
        return self._case(
            [
                (self._describe(record), np.array([record])),
                (self._name(own), self._some_of(own, but=record)),
            ],
            f"cosine {to_own:.2f} to its own",
        )

    def _name(self, person: int) -> str:
        return self._source.identity_names[person]

    def _some_of(self, person: int, *, but: int = -1) -> Int64Array:
        first, count = (int(each[0]) for each in self._source.images_of(np.array([person])))
        records: Int64Array = np.setdiff1d(np.arange(first, first + count), [but])
        return records[:_FACES]

    def _case(self, groups: list[tuple[str, Int64Array]], note: str) -> str:
        shown = "".join(
            f'<figure><div class="faces">{self._pictures(records, name)}</div>'
            f"<figcaption>{escape(name)}</figcaption></figure>"
            for name, records in groups
        )
        return f'<li><div class="groups">{shown}</div><small>{escape(note)}</small></li>'

    def _pictures(self, records: Int64Array, name: str) -> str:
        side = self._source.image_size
        return "".join(
            f'<img src="{data_uri(image)}" width="{side}" height="{side}" alt="{escape(name)}">'
            for image in self._source.load(records).numpy()
        )
