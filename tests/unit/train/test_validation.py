import io

import numpy as np
import pytest
import torch

from manyface.data.synthetic import SyntheticFaces
from manyface.evaluate import PairEvaluator, synthetic_pairs
from manyface.observe import EventLog, MemoryMeter, Throughput, read_events
from manyface.observe.progress import LineProgress
from manyface.train.recording import Notices, Recorder
from manyface.train.stop import StopFlag
from manyface.train.validation import Validation


@pytest.fixture
def recorder(tmp_path):
    stream = io.StringIO()
    with EventLog(tmp_path / "events.jsonl") as events, MemoryMeter() as meter:
        yield Recorder(
            events,
            LineProgress("run", num_steps=4, stream=stream),
            num_steps=4,
            throughput=Throughput(),
            meter=meter,
        )


def make_validation(tmp_path, recorder, stop, embed):
    faces = SyntheticFaces(num_identities=20, images_per_identity=2, image_size=32)
    evaluator = PairEvaluator(synthetic_pairs(faces, num_pairs=20, folds=2, seed=0))
    return Validation(
        [evaluator],
        embed,
        num_steps=4,
        directory=tmp_path / "evaluation",
        recorder=recorder,
        stop=stop,
    )


def pixels(images):
    return images.flatten(1).float()


def test_scores_events_and_files(tmp_path, recorder):
    validation = make_validation(tmp_path, recorder, StopFlag(), pixels)
    assert 0.0 <= validation(2) <= 1.0
    assert validation(4) == validation.results[next(iter(validation.results))].value("accuracy")
    on_the_way, at_the_end = (
        event for event in read_events(tmp_path / "events.jsonl") if event["kind"] == "evaluation"
    )
    assert on_the_way["scores"][0]["name"] == "accuracy"
    assert on_the_way["scores"][0]["low"] is None
    assert at_the_end["scores"][0]["low"] is not None
    (name,) = validation.results
    assert recorder._progress._stream.getvalue().count(f"run: evaluating {name}\n") == 2
    with np.load(tmp_path / "evaluation" / f"{name}.npz", allow_pickle=False) as found:
        assert found["similarity"].shape == (20,)


def test_a_stop_ends_an_evaluation_without_a_score(tmp_path, recorder):
    stop = StopFlag()

    def embed(images):
        stop.request()
        return torch.zeros(len(images), 3)

    validation = make_validation(tmp_path, recorder, stop, embed)
    validation._quick[0].batch_size = 8
    assert validation(2) is None
    assert validation.results == {}
    assert read_events(tmp_path / "events.jsonl") == []


def test_warnings_wait_for_the_recorder(tmp_path, recorder):
    notices = Notices()
    notices("early")
    recorder.begin(3)
    notices.connect(recorder)
    notices("late")
    warnings = [e for e in read_events(tmp_path / "events.jsonl") if e["kind"] == "warning"]
    assert [(e["text"], e["step"]) for e in warnings] == [("early", 3), ("late", 3)]
