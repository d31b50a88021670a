from pathlib import Path

from manyface.observe.available import available_bytes
from manyface.observe.memory import machine_bytes


def make_group(folder: Path, *, version: int, limit: str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(limit + "\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


def available(tmp_path: Path, groups: str) -> int:
    (tmp_path / "groups").write_text(groups)
    return available_bytes(groups=tmp_path / "groups", root=tmp_path / "root")


def test_without_limits_it_is_what_the_machine_has_left(tmp_path):
    assert 0 < available_bytes() <= machine_bytes()
    assert 0 < available(tmp_path, "0::/\n") <= machine_bytes()
    assert available_bytes(groups=tmp_path / "absent") > 0


def test_the_tightest_limit_of_all_groups_above_counts(tmp_path):
    make_group(tmp_path / "root/a/b", version=2, limit="max", used=900, cache=0)
    make_group(tmp_path / "root/a", version=2, limit="5000", used=3000, cache=400)
    assert available(tmp_path, "0::/a/b\n") == 2400
    make_group(tmp_path / "root/a/b", version=2, limit="1000", used=900, cache=50)
    assert available(tmp_path, "0::/a/b\n") == 150
    make_group(tmp_path / "root/a/b", version=2, limit="1000", used=1100, cache=0)
    assert available(tmp_path, "0::/a/b\n") == 0


def test_version_1_and_a_group_that_is_not_visible_from_inside(tmp_path):
    make_group(tmp_path / "root/memory", version=1, limit="7000", used=3000, cache=0)
    assert available(tmp_path, "5:cpu:/x\n4:memory:/absent/inside\n") == 4000
