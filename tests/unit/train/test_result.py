import json

from manyface.train.result import render_result


def test_the_text_is_json_with_names_as_they_are():
    assert json.loads(render_result({"name": "Zoë"})) == {"name": "Zoë"}
    assert "Zoë" in render_result({"name": "Zoë"})
