"""The papers' own runs: their data, nets, rates, batches and schedules, with what they published.

Recipes are arcface_torch's configurations (Partial FC, arXiv 2203.15565), those of the method of
2020 (arXiv 2010.05222) and of the F2C paper's repository (arXiv 2105.10375), which has no figures.
docs/protocols.md says how to get MFR-All and IJB-C of a trained run. Batches are of all GPUs
together, so any number of GPUs trains the same run. Not published, and taken to be 8, is the number
of GPUs (of 128 photos) of WebFace12M's runs. F2C's 19 epochs are of its instance loader, whose
photos are a third of all that it trains on: 57 as epochs are counted here.
"""

import json

from manyface.compat.insightface_config import NETWORKS
from manyface.studies.cells import Cell, Changes, Scale, Study, Table

DATA_SETS = ("ms1mv3", "glint360k", "wf4m", "wf12m", "wf42m", "wf12m_conflict", "wf12m_flip40")
_VIT: Changes = (
    "optimizer.name=adamw", "optimizer.learning_rate=0.001", "optimizer.weight_decay=0.1",
    "head.learning_rate=0.001", "head.optimizer=adamw", "head.weight_decay=0.1",
    "schedule.epochs=40", "schedule.warmup_epochs=4", f"train.batch_size={384 * 64}",
)  # fmt: skip
# What these have besides in the configurations of the runs: path dropping, tokens left out.
_VIT_NETS: dict[str, Changes] = {
    net: tuple(f"backbone.{key}={json.dumps(value)}" for key, value in options.items())
    for net, options in (
        NETWORKS[name]
        for name in ("vit_t_dp005_mask0", "vit_s_dp005_mask_0", "vit_b_dp005_mask_005",
                     "vit_l_dp005_mask_005")
    )
}  # fmt: skip
_AS_F2C: Changes = (
    "head.scale=32.0", "head.m=0.5", "optimizer.nesterov=true", "optimizer.weight_decay=0.0001",
    "optimizer.clip_norm=0.0", "train.batch_size=1536",
    "schedule.epochs=57", "schedule.decay=multistep", "schedule.milestones=[24, 42, 51]",
)  # fmt: skip
_F2C: Changes = ("head.method=f2c", "pool.preset=official", *_AS_F2C)
_OF_2020: Changes = (
    "schedule.epochs=", "schedule.steps=600000", "schedule.decay=multistep",
    "schedule.milestones=[200000, 400000, 500000, 550000]",
)  # fmt: skip
_ARCFACE: Changes = ("head.margin=arcface", "head.m=0.5", "head.gradient=straight_through")
_LIGHT: Changes = ("optimizer.weight_decay=0.0001", "head.weight_decay=0.0001")
# Of MS1MV3 and Glint360K by arcface_torch's configurations.
_OF_SET: dict[str, Changes] = {"ms1mv3": _ARCFACE, "glint360k": _LIGHT}
_OF_MOBILE: dict[str, Changes] = {
    "ms1mv3": (*_ARCFACE, *_LIGHT, "schedule.epochs=40"),
    "glint360k": _LIGHT,
}
_MOBILE_FIGURES = {"ms1mv3": (63.78, 94.23), "glint360k": (70.18, 95.04)}
_NOTE = (
    "Published are MFR-All and IJB-C at FAR 1e-4, in percent; accuracy here is on CFP-FP, which is "
    "judged while they train."
)


def paper_scale() -> Scale:
    """Data sets below the folder given by --data, each under its name."""
    return Scale(
        name="paper",
        files=dict.fromkeys(DATA_SETS, "paper.toml"),
        people=617_970,
        steps=0,
        batch=1024,
        seeds=1,
        identities={},
        classes=(10_000, 100_000, 1_000_000, 10_000_000, 100_000_000),
        photos={name: name for name in DATA_SETS},
    )


def _line(
    name: str, net: str, *more: str, rate: float = 1.0, batch: int = 1024, lr: float = 0.1,
    warmup: int = 0, published: str = "",
) -> Cell:  # fmt: skip
    """A run of theirs: SGD at `lr`, `batch` of all GPUs, `warmup` epochs."""
    head = "head.method=full" if rate == 1 else f"head.sample_rate={rate:g}"
    changes = (
        f"backbone.name={net}", head, f"train.batch_size={batch}",
        f"optimizer.learning_rate={lr:g}", f"schedule.warmup_epochs={warmup}",
    )  # fmt: skip
    return Cell(name, (*changes, *more), published=published)


def _figures(mfr: float, ijbc: float) -> str:
    return f"MFR-All {mfr:.2f}, IJB-C {ijbc:.2f}"


def _table(title: str, cells: tuple[Cell, ...], recipe: str) -> Table:
    """Of which the first cell is the baseline."""
    return Table(title, cells[0].name, cells, recipe, note=_NOTE)


def _rates() -> Table:
    found = {1.0: (94.69, 97.59), 0.3: (94.71, 97.64), 0.2: (94.75, 97.60), 0.1: (94.49, 97.56),
             0.05: (94.05, 97.51)}  # fmt: skip
    cells = tuple(
        _line(f"R100, rate {rate:g}", "r100", rate=rate, published=_figures(*figures))
        for rate, figures in found.items()
    )
    return _table("Sample rate, WebFace12M", cells, "wf12m")


def _rates_of_2020() -> Table:
    cells = tuple(
        _line(f"R100, rate {rate:g}", "r100", *_OF_2020, rate=rate, batch=512, published=figures)
        for rate, figures in {
            1.0: "IJB-C 97.3, IFRT-All 88.67",
            0.1: "IJB-C 97.3, IFRT-All 88.23",
        }.items()
    )
    return _table("Sample rate, Glint360K, as in 2020", cells, "glint360k")


def _noisy(data: str, title: str, full: tuple[float, float], rate: float,
           sampled: tuple[float, float]) -> Table:  # fmt: skip
    filtered = "head.negatives=interclass_filter"
    cells = (
        _line("R50, full FC", "r50", warmup=2, published=_figures(*full)),
        _line(f"R50, rate {rate:g}, filtered", "r50", filtered, rate=rate, warmup=2,
              published=_figures(*sampled)),
    )  # fmt: skip
    return _table(title, cells, data)


def _sizes() -> tuple[Table, ...]:
    full = {
        "ms1mv3": (("r50", 79.14, 96.37), ("r100", 81.97, 96.85)),
        "glint360k": (("r50", 86.34, 97.16), ("r100", 89.52, 97.55)),
        "wf4m": (("r100", 89.87, 97.19),),
    }
    tables = []
    for data, lines in full.items():
        own = _OF_SET.get(data, ())
        cells = tuple(
            _line(f"{net.upper()}, full FC", net, *own, published=_figures(*figures))
            for net, *figures in lines
        )
        tenth = _line(f"{lines[0][0].upper()}, rate 0.1", lines[0][0], *own, rate=0.1)
        tables.append(_table(f"Full FC, {data}", (*cells, tenth), data))
    small = _line("R50, rate 0.2", "r50", rate=0.2, batch=4096, lr=0.4, warmup=2,
                  published=_figures(93.83, 97.53))  # fmt: skip
    large = (
        _line("R100, rate 0.2", "r100", rate=0.2, batch=4096, lr=0.3, warmup=1,
              published=_figures(96.69, 97.85)),
        _line("R100, positive classes only", "r100", rate=0.0, batch=16384, lr=0.4, warmup=2,
              published=_figures(93.08, 97.51)),
    )  # fmt: skip
    return (
        *tables,
        _table("WebFace42M, R50", (small,), "wf42m"),
        _table("WebFace42M, R100", large, "wf42m"),
    )


def _nets() -> Table:
    convolutional = {"r18": (79.13, 95.77), "r50": (94.03, 97.48), "r100": (96.69, 97.82),
                     "r200": (97.70, 97.97)}  # fmt: skip
    transformers = {"vit_t": (92.24, 97.31), "vit_s": (95.87, 97.73), "vit_b": (97.42, 97.90),
                    "vit_l": (97.85, 98.00)}  # fmt: skip
    cells = [
        _line(f"{net.upper()}, rate 0.3", net, rate=0.3, batch=4096, lr=0.4, warmup=2,
              published=_figures(*figures))
        for net, figures in convolutional.items()
    ]  # fmt: skip
    cells += [
        _transformer(net, "head.sample_rate=0.3", name="rate 0.3", published=_figures(*figures))
        for net, figures in transformers.items()
    ]
    return Table("Backbones, WebFace42M", "R50, rate 0.3", tuple(cells), "wf42m", note=_NOTE)


def _transformer(net: str, head: str, *, name: str, published: str) -> Cell:
    title = net.replace("_", "-").upper()
    changes = (f"backbone.name={net}", head, *_VIT, *_VIT_NETS[net])
    return Cell(f"{title}, {name}", changes, published=published)


def _sampled_transformer() -> Table:
    """The papers have none without sampling; PaddlePaddle's PLSC has."""
    cells = (
        _transformer("vit_t", "head.method=full", name="full FC", published="PLSC: IJB-C 97.24"),
        _transformer(
            "vit_t", "head.sample_rate=0.2", name="rate 0.2", published="PLSC: IJB-C 97.28"
        ),
    )
    return _table("ViT with and without sampling, WebFace42M", cells, "wf42m")


def _pools() -> tuple[Table, ...]:
    def table(data: str) -> Table:
        cells = (
            _line("R50, full FC", "r50", *_OF_SET[data]),
            _line("R50, full FC by F2C's recipe", "r50", *_AS_F2C, *_LIGHT),
            *(Cell(f"R50, F2C {100 * share:g} %", ("backbone.name=r50", *_F2C,
                                                  f"pool.ratio={share}"))
              for share in (0.1, 0.01, 0.001)),
        )  # fmt: skip
        return _table(f"F2C, {data}", cells, data)

    def mobile(data: str) -> Table:
        cells = (
            _line("MobileFaceNet, full FC", "mbf", *_OF_MOBILE[data],
                  published=_figures(*_MOBILE_FIGURES[data])),
            Cell("MobileFaceNet, F2C 10 %", ("backbone.name=mbf", *_F2C, "pool.ratio=0.1")),
        )  # fmt: skip
        return _table(f"F2C, MobileFaceNet, {data}", cells, data)

    sets = ("ms1mv3", "glint360k")
    return (*map(table, sets), *map(mobile, sets))


def _margins() -> Table:
    cells = (
        _line("CosFace 0.4", "r50"),
        _line("ArcFace 0.5, exact gradient", "r50", *_ARCFACE[:2]),
        _line("ArcFace 0.5, straight-through", "r50", *_ARCFACE, published=_figures(79.14, 96.37)),
        _line("AdaFace 0.4", "r50", "head.margin=adaface"),
    )  # fmt: skip
    return _table("Margins, MS1MV3", cells, "ms1mv3")


def paper_studies() -> dict[str, Study]:
    """Name -> study, of those that the papers have runs of."""
    conflict = _noisy("wf12m_conflict", "WebFace12M-Conflict", (79.93, 95.30), 0.3, (91.68, 97.28))
    flip = _noisy("wf12m_flip40", "WebFace12M, 40 % flipped", (43.87, 88.35), 0.1, (80.20, 96.11))
    listed = (
        Study("rate", "Sample rate", "As the ablations of both Partial FC papers.",
              (_rates(), _rates_of_2020())),
        Study("identities", "Number of identities", "The papers' training sets.", _sizes()),
        Study("pool", "Dynamic class pool", "F2C's training sets and nets.", _pools()),
        Study("conflict", "Inter-class conflict", "People split into several labels.", (conflict,)),
        Study("flip", "Flipped labels", "Photos under wrong labels.", (flip,)),
        Study("margins", "Margins", "On MS1MV3.", (_margins(),)),
        Study("backbones", "Backbones", "The Partial FC paper's nets.",
              (_nets(), _sampled_transformer())),
    )  # fmt: skip
    return {study.name: study for study in listed}
