"""The stopwatch of a run."""

import json

import pytest
import torch

from waveflow.training import minutes as module
from waveflow.training.minutes import Minutes


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module.time, "process_time", clock)
    return clock


def test_counts_only_while_it_runs(clock, tmp_path):
    minutes = Minutes(tmp_path / "minutes.json", torch.device("cpu"))
    clock.now += 600
    minutes.start()
    clock.now += 60
    with minutes.paused():
        clock.now += 600
    clock.now += 30
    assert minutes.total == 1.5
    minutes.stop()
    clock.now += 600
    minutes.stop()
    assert minutes.total == 1.5 and minutes.unit == "CPU minutes"


def test_goes_on_where_it_was_and_forgets_what_was_undone(clock, tmp_path):
    path = tmp_path / "minutes.json"
    first = Minutes(path, torch.device("cpu"))
    first.start()
    for step in (10, 20, 30):
        clock.now += 60
        first.mark(step)
    first.save()
    assert json.loads(path.read_text()) == {"unit": "CPU minutes", "total": 3, "at": {"10": 1, "20": 2, "30": 3}}

    second = Minutes(path, torch.device("cpu"))
    assert second.total == 3
    second.start()
    clock.now += 120
    second.mark(20)  # resumed from step 10: what was spent beyond it was spent all the same
    assert second.at == {10: 1, 20: 5} and second.total == 5


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"total": 3}', '{"total": "long", "at": {}}', '{"total": 3, "at": {"x": 1}}', "\x00"]
)
def test_a_damaged_file_starts_it_anew_with_a_word(content, tmp_path, caplog):
    path = tmp_path / "minutes.json"
    path.write_text(content)
    minutes = Minutes(path, torch.device("cpu"))
    assert minutes.total == 0 and minutes.at == {}
    assert f"{path} is damaged: the minutes of this run are counted anew" in caplog.text


def test_on_a_gpu_time_passes_for_itself(tmp_path):
    assert Minutes(tmp_path / "minutes.json", torch.device("cuda")).unit == "minutes"
