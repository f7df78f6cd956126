import math

import numpy as np
import pytest
import torch
from regression import Points, squared_error, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from waveflow.training import RunFolder, RunLog


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.prepare(resume=False)
    return folder


def events(folder):
    accumulator = EventAccumulator(str(folder.logs), size_guidance={"audio": 0, "images": 0, "scalars": 0})
    return accumulator.Reload()


def test_figures_are_read_back_exactly(folder):
    values = [0.1, 1 / 3, 1e-300, -math.pi, math.inf]
    log = RunLog(folder)
    for log.step, value in enumerate(values):
        log.scalars({"train/loss": value})
    log.close()
    header, *rows = (folder.logs / "metrics.csv").read_text().splitlines()
    assert header == "step,name,value"
    assert [float(row.split(",")[2]) for row in rows] == values
    assert [scalar.step for scalar in events(folder).Scalars("train/loss")] == [0, 1, 2, 3, 4]


def test_sounds_and_pictures_reach_tensorboard(folder):
    log = RunLog(folder)
    log.step = 7
    log.audio("speech", torch.linspace(-1, 1, 100), sample_rate=8000)
    log.image("mel", np.zeros((5, 8, 3), np.uint8))
    log.image("grey", torch.zeros(5, 8))
    log.close()
    read = events(folder)
    (sound,), (picture,), (grey,) = read.Audio("speech"), read.Images("mel"), read.Images("grey")
    assert (sound.step, sound.sample_rate) == (7, 8000)
    assert (picture.step, picture.width, picture.height) == (7, 8, 5)
    assert (grey.width, grey.height) == (8, 5)


def test_what_depends_on_the_clock_is_not_in_the_csv(folder):
    log = RunLog(folder)
    log.timing({"speed/steps_per_second": 3.0})
    log.close()
    assert (folder.logs / "metrics.csv").read_text() == "step,name,value\n"
    assert events(folder).Scalars("speed/steps_per_second")[0].value == 3.0


def test_continued_log_drops_what_came_after_the_checkpoint(folder):
    log = RunLog(folder)
    log.step = 1
    log.scalars({"a": 1.0})
    size = log.size
    log.step = 2
    log.scalars({"a": 2.0})
    log.close()
    log = RunLog(folder, step=1, size=size)
    log.step = 2
    log.scalars({"a": 2.5})
    log.close()
    assert (folder.logs / "metrics.csv").read_text() == "step,name,value\n1,a,1.0\n2,a,2.5\n"
    assert [(scalar.step, scalar.value) for scalar in events(folder).Scalars("a")] == [(1, 1.0), (2, 2.5)]


def test_log_that_was_deleted_begins_anew(folder):
    RunLog(folder, step=5, size=100).close()
    assert (folder.logs / "metrics.csv").read_text() == "step,name,value\n"


def test_sample_gets_the_log_and_a_folder_after_each_validation_but_the_first(tmp_path):
    steps = []

    def sample(model, log):
        steps.append(log.step)
        assert not model.training and not torch.is_grad_enabled()
        (log.samples / f"{log.step}.txt").write_text("")
        log.image("prediction", model(Points().batch(0)["x"]).sigmoid())

    train(tmp_path / "run", squared_error, steps=5, validate_every=2, sample=sample)
    assert steps == [2, 4, 5]
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 3
