"""Whether a recipe and its data fit together: said before a run begins, not in its middle."""

from manyface.base.errors import ConfigError
from manyface.centers.table import INITIAL_DEVIATION
from manyface.config import Config
from manyface.config.head import WITHOUT_CENTERS
from manyface.data import ImageSource, Mixture
from manyface.observe.memory import machine_bytes

_LONG = 0.3  # share of the warm-up with which embeddings came apart; with 0.03 they did not
_FAST = 4.0  # where 6 points of accuracy were lost; the papers' runs have 1 to 2


def check_batch_size(batch_size: int, source: ImageSource) -> None:
    """Refuse a batch that would hold an image twice, or that no memory holds."""
    if batch_size > len(source):
        raise ConfigError(
            f"train.batch_size is {batch_size}, but {source.name} has {len(source)} images; "
            f"set train.batch_size to {len(source)} at most"
        )
    needed = batch_size * 3 * source.image_size**2 * 4  # float32 pixels, before any layer
    if needed > machine_bytes():
        raise ConfigError(
            f"train.batch_size is {batch_size}: {needed / 2**30:.0f} GiB for the pixels alone are "
            "more than this machine's memory; lower train.batch_size"
        )


def check_ranks(batch_size: int, num_ranks: int, *, method: str) -> None:
    """Refuse more ranks than a batch can be shared out to: each rank's net wants images."""
    at_once = batch_size // 2 if method == "f2c" else batch_size  # images that a net is shown
    if num_ranks > 1 and at_once // num_ranks < 2:  # batch norm needs company
        least = 2 * num_ranks * (2 if method == "f2c" else 1)
        raise ConfigError(
            f"train.batch_size is {batch_size} images of all {num_ranks} ranks together, which "
            f"gives some less than 2 at a time; set it to {least} or more, or start fewer ranks"
        )


def recipe_warnings(config: Config) -> list[str]:
    """What is known to cost accuracy, whatever the data."""
    return [text for text in (fast_centers_warning(config), collapse_warning(config)) if text]


def fast_centers_warning(config: Config) -> str | None:
    """What to say of class centers whose first step throws them far out, where they stay: by
    `times` their first length (docs/heads.md, "The learning rate of the head")."""
    head, batch_size = config.head, config.train.batch_size * config.optimizer.accumulation
    if head.method in WITHOUT_CENTERS or head.optimizer != "sgd":
        return None
    learning_rate = head.learning_rate or config.optimizer.learning_rate
    first_length = INITIAL_DEVIATION**2 * config.backbone.embedding_size  # squared
    times = learning_rate / (1 - head.momentum) * head.scale / (batch_size * first_length)
    if times <= _FAST:
        return None
    return (
        f"a photo moves its class center by {times:.0f} times the center's first length, which "
        f"costs accuracy: set head.learning_rate to about {learning_rate / times:.1g} for batches "
        f"of {batch_size}, or make these larger (docs/heads.md)"
    )


def collapse_warning(config: Config) -> str | None:
    """What to say of a margin under which F2C left all embeddings alike (docs/f2c.md, start)."""
    head = config.head
    if head.method != "f2c" or head.margin not in ("arcface", "sphereface"):
        return None
    if head.gradient != "exact" or _share_of_warmup(config) >= _LONG:
        return None
    return (
        f"F2C with {head.margin}, its exact gradient and a short warm-up left all embeddings alike "
        "and cost 12 points: warm up for a third of the training (schedule), or set head.gradient "
        'to "straight_through" (docs/f2c.md)'
    )


def _share_of_warmup(config: Config) -> float:
    """Of the training; 0 where one counts steps and the other epochs."""
    chosen = config.schedule
    if chosen.steps:
        return chosen.warmup_steps / chosen.steps
    return chosen.warmup_epochs / chosen.epochs if chosen.epochs else 0.0


def check_half_batch(batch_size: int) -> None:
    """Refuse a batch whose halves F2C's nets cannot be trained on."""
    if batch_size < 4:
        raise ConfigError(
            f"train.batch_size is {batch_size}: head.method 'f2c' makes two half batches of it, "
            "and the nets' batch norm needs 2 images in each; set train.batch_size to 4 or more"
        )


def check_anchors(anchors: int, *, batch_size: int, pairs: int, num_identities: int) -> None:
    """Refuse fewer anchors than the identities that a batch with so many pairs may hold."""
    needed = min(num_identities, batch_size - pairs)
    if anchors < needed:
        raise ConfigError(
            f"{anchors} anchors are too few for head.method 'virtual': a batch of {batch_size} "
            f"images may show {needed} people; set pool.slots to {needed} or more, raise "
            "pool.ratio, or lower train.batch_size"
        )


def check_slots(slots: int, num_identities: int) -> None:
    """Refuse more slots or anchors than there are people."""
    if slots > num_identities:
        raise ConfigError(
            f"pool.slots is {slots}, but the data have {num_identities} people; set pool.slots to "
            f"{num_identities} at most, or set pool.ratio instead"
        )


def shared_names_warning(source: Mixture, *, common: int) -> str | None:
    """One line where the first `common` sets have names in common, else None; numbers are none."""
    seen: set[str] = set()
    twice: set[str] = set()
    for each in source.sources[:common] if common > 1 else []:
        names = {name for name in each.identity_names if not name.isdecimal()}
        twice |= seen & names
        seen |= names
    if not twice:
        return None
    return (
        f"{len(twice)} people have the same name in several of data.sets (first: {min(twice)!r}): "
        "the common head takes them for different people; merge the sets, leave these people out "
        "of one of them, or give it head = 'own'"
    )


def single_images_warning(source: ImageSource) -> str | None:
    """One line where every person has a single image, else None."""
    if len(source) > source.num_identities:  # everybody has one at least
        return None
    return (
        f"nobody in {source.name} has more than one image: nothing shows the net how photos of one "
        "person differ, so expect little; give people 2 or more images each"
    )
