import json
import re

from manyface.train.result import _resolve, commit, render_result, versions


def test_versions_and_commit():
    assert versions().keys() == {"manyface", "python", "torch", "numpy"}
    found = commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}", found)


def test_packed_references_are_found(tmp_path):
    (tmp_path / "packed-refs").write_text("# pack-refs\n" + "a" * 40 + " refs/heads/main\n")
    assert _resolve(tmp_path, "refs/heads/main") == "a" * 40
    assert _resolve(tmp_path, "refs/heads/other") is None


def test_the_text_is_json_with_names_as_they_are():
    assert json.loads(render_result({"name": "Zoë"})) == {"name": "Zoë"}
    assert "Zoë" in render_result({"name": "Zoë"})
