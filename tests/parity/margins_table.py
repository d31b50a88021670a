"""Every margin that the parity tests sweep."""

import manyface as mf

MARGINS: dict[str, mf.Margin] = {
    "normface": mf.NormFace(),
    "cosface": mf.CosFace(0.4),
    "arcface": mf.ArcFace(0.5),
    "arcface_straight_through": mf.ArcFace(0.5, gradient="straight_through"),
    "combined": mf.CombinedMargin(1.3, 0.3, 0.2),
    "combined_straight_through": mf.CombinedMargin(0.9, 0.4, 0.1, gradient="straight_through"),
}
