"""The best model that is kept beside the last."""

import math

import pytest

from waveflow.training.best_model import BestModel


def export(text):
    def write(folder):
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(text)

    return write


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "best"


def weights(folder):
    return (folder / "model.safetensors").read_text()


def test_only_what_is_better_replaces_it(folder):
    best = BestModel(folder, {"images": 5})
    assert best.step is None and not best.offer(1, math.inf, export("inf")) and not folder.exists()
    assert best.offer(2, 3.0, export("a")) and not best.offer(3, 3.0, export("b"))
    assert not best.offer(4, math.nan, export("c")) and weights(folder) == "a"
    assert best.offer(5, 2.0, export("d")) and weights(folder) == "d" and (best.step, best.figure) == (5, 2.0)


def test_the_next_process_goes_on(folder):
    BestModel(folder, {"images": 5}).offer(2, 3.0, export("a"))
    again = BestModel(folder, {"images": 5})
    assert (again.step, again.figure) == (2, 3.0) and not again.offer(3, 3.5, export("b"))
    other = BestModel(folder, {"images": 6})
    assert other.step is None and other.offer(3, 3.5, export("b")) and weights(folder) == "b"


def test_a_failed_export_leaves_the_one_before(folder):
    best = BestModel(folder, {})
    best.offer(2, 3.0, export("a"))

    def fail(partial):
        (partial / "model.safetensors").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        best.offer(3, 2.0, fail)
    assert weights(folder) == "a" and sorted(path.name for path in folder.iterdir()) == [
        "best.json",
        "config.json",
        "model.safetensors",
    ]
    assert (BestModel(folder, {}).step, best.step) == (2, 2)


@pytest.mark.parametrize("content", ["{", "[]", '{"step": 1}', '{"step": 1, "figure": null, "measured_on": {}}'])
def test_a_damaged_record_is_warned_about(folder, content, caplog):
    BestModel(folder, {}).offer(2, 3.0, export("a"))
    (folder / "best.json").write_text(content)
    assert BestModel(folder, {}).step is None and "best.json is damaged" in caplog.text
