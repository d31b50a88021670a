"""Plans for many GPUs: bytes by hand, what grows and shrinks, the smallest number that fits."""

from dataclasses import replace

import pytest
from small_recipe import recipe

from manyface.base.errors import ConfigError
from manyface.config import Config
from manyface.plan import Cluster, Prediction, fewest_gpus, plan_for_gpus
from manyface.plan.measuring import changed
from manyface.plan.saving import saving
from manyface.plan.traffic import (
    BACKBONE_GRADIENTS,
    EMBEDDING_GRADIENTS,
    LATENCY,
    LATENCY_OF_DOUBLING,
    collectives,
)

H100 = Cluster("h100", 8)


def plan(config: Config, gpus: int, identities: int = 10_000, **other: object) -> Prediction:
    """With as many images on each GPU as the recipe has in all."""
    config = changed(config, "train", batch_size=config.train.batch_size * gpus)
    cluster = replace(H100, gpus=gpus, **other)  # type: ignore[arg-type]
    return plan_for_gpus(config, identities=identities, cluster=cluster)


def passed(config: Config, gpus: int = 4) -> dict[str, tuple[str, int, int]]:
    """name -> kind, bytes of a call, calls; with 1000 parameters."""
    cluster = replace(H100, gpus=gpus)
    found = collectives(
        config,
        cluster,
        active=300,
        gradients=4000,
        statistics=400,
        net_seconds=0.0,
        head_seconds=0.0,
    )
    return {each.name: (each.kind, each.passed, each.calls) for each in found}


# B = 8 images of a rank, D = 16, W = 4.
CENTERS = {
    "counts": ("all-gather", 16, 1),
    "labels": ("all-gather", 8 * 8, 1),
    "embeddings": ("all-gather", 4 * 8 * 16, 1),
    "sums": ("all-reduce", 2 * 4 * 4 * 8, 1),
    "embedding gradients": ("reduce-scatter", 4 * 4 * 8 * 16, 1),
    "backbone gradients": ("all-reduce", 4 * 1000, 1),
    "batch norm statistics": ("all-reduce", 4 * 100, 1),
    "stop and save": ("all-reduce", 24, 1),
}


def test_bytes_of_each_collective() -> None:
    assert passed(recipe()) == CENTERS
    assert passed(recipe(sample_rate=0.1)) == CENTERS
    assert passed(recipe(), gpus=1) == {}


@pytest.mark.parametrize(
    ("head", "others"),
    [
        ({"margin": "adaface"}, {"target cosines": 1}),
        ({"negatives": "interclass_filter"}, {"target logits": 1, "sums": 1}),
        ({"scale": 200.0}, {"target logits": 1, "largest logits": 1, "sums": 1}),
        (
            {"negatives": "curricular", "scale": 16.0},
            {"target cosines": 1, "target logits": 1, "sums": 1},
        ),
        ({"label_smoothing": 0.1}, {"sums": 4}),
        ({"label_smoothing": 0.1, "sub_centers": 2}, {"target logits": 1, "sums": 3}),
    ],
)
def test_bytes_of_what_a_loss_needs_besides(
    head: dict[str, object], others: dict[str, int]
) -> None:
    numbers = {name: ("all-reduce", 4 * n * 4 * 8, 1) for name, n in others.items()}
    assert passed(recipe(**head)) == CENTERS | numbers


def test_bytes_of_the_pool() -> None:
    found = passed(recipe(method="f2c"))
    assert "labels" not in found  # plans are made of them ahead
    assert found["counts"] == ("all-gather", 24, 1)
    assert found["embeddings"] == ("all-gather", 4 * 4 * 16, 2)  # a pass has half as probes
    assert found["gallery features"] == ("all-gather", 4 * 4 * 16, 2)
    assert found["sums"] == ("all-reduce", 2 * 4 * 4 * 4, 2)
    assert found["embedding gradients"] == ("reduce-scatter", 4 * 4 * 4 * 16, 2)
    assert "hardest cosines" not in found  # pairs of one identity are all inside
    both = changed(recipe(method="f2c"), "pool", identity_share=0.5, hard_negatives=5)
    assert passed(both)["hardest cosines"] == ("all-gather", 4 * 5 * 8, 2)  # half of 4 x 4
    single = changed(recipe(method="f2c"), "pool", passes=1)
    assert passed(single)["gallery features"] == ("all-gather", 4 * 4 * 16, 1)


def test_a_ring_sends_what_the_formulas_say() -> None:
    config = recipe()
    found = plan(config, 4).collectives
    moved = {each.name: each.moved for each in found}
    assert moved["embeddings"] == 3 * 4 * 8 * 16
    assert moved["sums"] == 2 * 3 * (2 * 4 * 4 * 8) // 4
    assert moved["embedding gradients"] == 3 * (4 * 4 * 8 * 16) // 4
    (gradients,) = (each for each in found if each.name == "backbone gradients")
    assert gradients.moved == 2 * 3 * gradients.passed // 4
    seconds = LATENCY + gradients.moved / (0.7 * 450e9)
    assert gradients.seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("gpus", "machines", "bandwidth"),
    [(1, 1, 450e9), (8, 1, 450e9), (9, 2, 200e9), (16, 2, 400e9), (512, 64, 400e9)],
)
def test_the_network_of_a_machine_works_together(
    gpus: int, machines: int, bandwidth: float
) -> None:
    cluster = replace(H100, gpus=gpus)
    assert cluster.machines == machines
    assert cluster.ring_bandwidth == bandwidth
    slow = replace(cluster, network_gbit=80)
    assert slow.ring_bandwidth == (bandwidth if machines == 1 else bandwidth / 5)


def test_latency_grows_with_machines() -> None:
    for gpus, doublings in ((8, 0), (16, 1), (24, 2), (512, 6)):
        counts = plan(recipe(), gpus).collectives[0]
        assert counts.seconds == pytest.approx(LATENCY + doublings * LATENCY_OF_DOUBLING, rel=1e-3)


def test_what_arithmetic_hides() -> None:
    def gradients(**seconds: float) -> tuple[float, float, float]:
        parts = {"net_seconds": 0.0, "head_seconds": 0.0, **seconds}
        found = collectives(
            recipe(), H100, active=300, gradients=200 * 2**20, statistics=0, **parts
        )
        by_name = {each.name: each for each in found}
        of_embeddings, of_net = by_name[EMBEDDING_GRADIENTS], by_name[BACKBONE_GRADIENTS]
        return of_embeddings.waited, of_net.waited, of_net.seconds

    embeddings, net, seconds = gradients()
    assert net == seconds
    hidden, last, _ = gradients(net_seconds=10.0, head_seconds=10.0)
    assert hidden == LATENCY < embeddings
    assert last == pytest.approx(LATENCY + (seconds - LATENCY) / 8)  # the last bucket's way
    _, half, _ = gradients(net_seconds=seconds)
    assert half == pytest.approx(seconds / 2)


def test_ranks_share_the_rows() -> None:
    one, four = plan(recipe(), 1), plan(recipe(), 4)
    assert one.bytes.rows == 4 * four.bytes.rows == 10_000 * 16 * 4
    assert one.bytes.state == 4 * four.bytes.state
    assert one.collectives == ()
    assert one.bytes.exchange == one.seconds.communication == 0
    assert four.bytes.exchange > 4 * 8 * (4 * 16 + 8)
    assert four.seconds.communication == sum(each.waited for each in four.collectives) > 0
    assert four.as_dict()["rows_of_rank"] == 2500


def test_more_gpus_take_less_each_and_say_more() -> None:
    found = [plan(recipe(), gpus, 10**9) for gpus in (1, 2, 8, 64, 512)]
    rows = [each.bytes.rows for each in found]
    waited = [each.seconds.communication for each in found]
    images = [each.images_per_second for each in found]
    assert rows == sorted(rows, reverse=True)
    assert waited == sorted(waited)
    assert images == sorted(images)


def test_a_slower_network_takes_longer() -> None:
    fast, slow = plan(recipe(), 64), plan(recipe(), 64, network_gbit=10.0)
    assert slow.seconds.communication > fast.seconds.communication
    assert slow.bytes == fast.bytes
    inside = plan(recipe(), 8), plan(recipe(), 8, network_gbit=10.0)
    assert inside[0].seconds == inside[1].seconds


def test_positives_are_shared_too() -> None:
    config = recipe(method="partial", sample_rate=0.0)
    assert plan(config, 1).active == 8
    assert plan(config, 64, 10**6).active == 8  # 512 images, 8 of each rank's classes
    assert plan(config, 64, 64).active == 1


def test_batches_of_an_update_are_counted() -> None:
    once = plan(recipe(), 8)
    four = plan(changed(recipe(), "optimizer", accumulation=4), 8)
    assert four.seconds.head == pytest.approx(4 * once.seconds.head)
    assert four.seconds.backbone == pytest.approx(4 * once.seconds.backbone)
    assert four.images_per_second == pytest.approx(4 * 8 * 8 / four.seconds.step)
    calls = {each.name: each.calls for each in four.collectives}
    assert (calls["embeddings"], calls["backbone gradients"]) == (4, 1)
    assert four.bytes == once.bytes


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"dtype": "bfloat16", "momentum": 0.0},
        pytest.param({"sample_rate": 0.1}, marks=pytest.mark.slow),
        {"placement": "host"},
        {"method": "f2c"},
        pytest.param({"sample_rate": 0.1, "sampler": "hard"}, marks=pytest.mark.slow),
    ],
)
def test_the_smallest_number_that_fits(head: dict[str, object]) -> None:
    config, identities = changed(recipe(**head), "train", batch_size=4096), 20_000_000_000
    gpus = fewest_gpus(config, identities=identities, cluster=H100)
    assert gpus is not None
    assert gpus > 1
    for count, fits in ((gpus, True), (gpus - 1, False)):
        cluster = replace(H100, gpus=count)
        assert plan_for_gpus(config, identities=identities, cluster=cluster).fits is fits


def test_more_gpus_than_a_batch_can_be_shared_out_to() -> None:
    with pytest.raises(ConfigError, match="batch_size is 8 images of all 8 ranks"):
        plan_for_gpus(recipe(), identities=1000, cluster=H100)
    assert fewest_gpus(recipe(), identities=20_000_000_000, cluster=H100) is None  # 4 at most


def test_the_batch_is_that_of_all() -> None:
    config = changed(recipe(), "train", batch_size=100)
    one, eight = (
        plan_for_gpus(config, identities=1000, cluster=replace(H100, gpus=n)) for n in (1, 8)
    )
    assert one.batch_size == eight.batch_size == 100
    assert eight.images_per_second == pytest.approx(100 / eight.seconds.step)
    sizes = {each.name: each.passed for each in eight.collectives}
    assert sizes["labels"] == 8 * 13  # of the fullest rank
    assert eight.bytes.activations < one.bytes.activations / 4
    pool = changed(recipe(method="f2c"), "train", batch_size=100)
    of_pool = plan_for_gpus(pool, identities=1000, cluster=H100).collectives
    assert {each.name: each.passed for each in of_pool}["embeddings"] == 4 * 7 * 16


def test_slots_by_number_are_spread_over_the_ranks() -> None:
    by_share, by_number = (
        plan(changed(recipe(method="f2c"), "pool", **pool), 4)
        for pool in ({"ratio": 0.5, "slots": None}, {"ratio": None, "slots": 5000})
    )
    assert by_number.active == by_share.active == 1250
    assert by_number.bytes.rows == by_share.bytes.rows


def test_a_small_table_fits_one() -> None:
    assert fewest_gpus(recipe(), identities=1000, cluster=replace(H100, gpus=512)) == 1


def test_bytes_of_a_checkpoint() -> None:
    cluster = replace(H100, gpus=16, disk_gb=2.0)
    found = saving(cluster, rows=10**9, replicated=10**8, host_free=10**10, step_seconds=1.0)
    assert found.of_rank == 11 * 10**8
    assert found.of_all == 161 * 10**8
    assert found.budget == 4 * 10**9
    assert found.is_staged
    assert found.seconds == pytest.approx(8.1 / 2)  # eight ranks of the first machine, 2 GB/s
    assert found.pause == pytest.approx(1.1e9 / (0.7 * 64e9))
    assert found.shutdown == 30  # torchrun's own; 1 + 2 * 4.05 + 5 is less


def test_a_checkpoint_that_host_memory_cannot_hold() -> None:
    found = saving(
        H100, rows=10**10, replicated=0, host_free=10**12, step_seconds=0.5, staging=10**9
    )
    assert not found.is_staged
    assert found.pause == found.seconds == pytest.approx(80)
    assert found.shutdown == 170  # 0.5 + 2 * 80 + 5
    none = saving(H100, rows=10**6, replicated=0, host_free=-1, step_seconds=0.5)
    assert not none.is_staged


def test_a_plan_has_its_checkpoint_and_its_assumptions() -> None:
    found = plan(recipe(), 16, network_gbit=100.0, host_gib=77.0, disk_gb=3.5)
    assert found.saving is not None
    held = found.bytes.backbone - _gradients(found)
    assert found.saving.of_rank == found.bytes.rows + found.bytes.state + held
    text = "\n".join(found.assumptions)
    for said in ("100 Gbit/s", "100 GB/s around", "77 GiB", "3.5 GB/s"):
        assert said in text
    assert found.host_available == 77 * 2**30


def _gradients(found: Prediction) -> int:
    (gradients,) = (each for each in found.collectives if each.name == "backbone gradients")
    return gradients.passed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu": "h1000"}, "no data sheet of GPU 'h1000'"),
        ({"gpus": 0}, "1 to 65,536, got 0"),
        ({"gpus": 65_537}, "got 65537"),
        ({"network_gbit": 0.0}, "expected --network-gbit above 0, got 0"),
        ({"host_gib": float("nan")}, "--host-gib"),
        ({"disk_gb": -1.0}, "--disk-gb"),
    ],
)
def test_clusters_that_are_none(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Cluster(**{"gpu": "h100", "gpus": 8, **options})  # type: ignore[arg-type]
