"""Several rows for one class: the nearest of them stands for it.

Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces", ECCV
2020, eq. 2-3. A class has S rows that lie together, class j the rows j S to (j + 1) S - 1. Its
cosine is the largest of theirs, and that row alone is trained, of equal ones the first. Margin,
rule and softmax see classes only, so `nearest` comes right after the product of a chunk, and
`spread` right before the products that need rows again: O(B n) beside the chunk's [B, n S].
"""

import torch
from torch import Tensor

from manyface.base.errors import ConfigError
from manyface.base.numeric import unit_rows


class Unchanged:
    """The rule for negatives that changes nothing, where every (sample, class) must be looked at:
    with sub-centers, label smoothing's even pull is of another row for each sample."""

    bound = 1.0

    def __call__(self, cosine: Tensor, target_logit: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n], [B, 1] -> [B, n], [B, n]."""
        return cosine, torch.ones_like(cosine)


def nearest(cosines: Tensor, sub_centers: int) -> tuple[Tensor, Tensor]:
    """Cosines of rows [B, n S] -> of classes [B, n], and whose they are, int64 [B, n] in [0, S)."""
    found = cosines.view(cosines.shape[0], -1, sub_centers).max(dim=2)  # the first of equal ones
    return found.values, found.indices


def spread(values: Tensor, which: Tensor, sub_centers: int) -> Tensor:
    """Values of classes [B, n] -> of rows [B, n S]: at the rows `which` [B, n], 0 at the others."""
    rows = values.new_zeros(*values.shape, sub_centers)  # [B, n, S]
    rows.scatter_(2, which.unsqueeze(2), values.unsqueeze(2))
    return rows.view(values.shape[0], -1)


def rows_of_classes(classes: Tensor, sub_centers: int) -> Tensor:
    """Rows int64 [n S] of `classes` int64 [n], class by class."""
    if sub_centers == 1:
        return classes
    within = torch.arange(sub_centers, device=classes.device)
    return (classes[:, None] * sub_centers + within).flatten()


def nearest_own(
    unit: Tensor, rows: Tensor, targets: Tensor, *, sub_centers: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Each sample's own row: its place int64 [B], the row at length 1 [B, D], its cosine [B].

    Args:
        unit: x^ [B, D].
        rows: of each sample's class, [B S, D].
        targets: own classes, int64 [B].
        sub_centers: S.
    """
    own, _ = unit_rows(rows.to(unit.dtype))  # [B S, D]
    if sub_centers == 1:
        return targets, own, (unit * own).sum(dim=1)
    own = own.view(len(unit), sub_centers, own.shape[1])
    cosine, which = (unit[:, None] * own).sum(dim=2).max(dim=1)  # [B]
    samples = torch.arange(len(unit), device=unit.device)
    return targets * sub_centers + which, own[samples, which], cosine


def check_sub_centers(sub_centers: int, *, num_rows: int) -> None:
    """Rows must be a whole number of sub-centers for each class."""
    if sub_centers < 1 or num_rows % sub_centers != 0:
        raise ConfigError(
            f"rows must be a whole number of sub_centers for each class, got {num_rows} rows and "
            f"sub_centers={sub_centers}"
        )
