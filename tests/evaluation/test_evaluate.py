"""The report of an evaluation, from a vocoder that repeats what it should say."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from waveflow.audio import MelConfig
from waveflow.errors import InputError
from waveflow.evaluation import (
    MEAN_FIGURES,
    YARDSTICKS,
    ClipFigures,
    Report,
    Synthesizer,
    evaluate,
    mean_stoi,
    yardsticks,
)


def voice(pitch: float, frames: int) -> torch.Tensor:
    t = torch.arange(256 * frames) / 22050
    tone = sum(torch.sin(2 * math.pi * pitch * k * t) / k for k in range(1, 12))
    return 0.1 * tone * (1 + 0.5 * torch.sin(2 * math.pi * 4 * t))


class Parrot(nn.Module):
    """Hides the waveform in the mel it is given, and says it again, with noise of the temperature."""

    mel_config = MelConfig()

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.calls = []

    def log_prob(self, waveform, mel):
        return -2.0 * torch.ones(len(waveform)) * waveform.shape[1]

    def vocode(self, mel, temperature=None, *, generator=None, chunk=None):
        self.calls.append((mel.shape[2], temperature, chunk))
        waveform = mel.transpose(1, 2)[:, :, :256].flatten(1)
        noise = torch.randn(waveform.shape, generator=generator)
        return waveform + (0.0 if temperature is None else temperature) * noise

    def denoiser(self):
        return lambda waveform, strength: waveform * (1 - strength)


def clip(pitch, frames, name):
    waveform = voice(pitch, frames)
    return {"waveform": waveform, "mel": waveform.reshape(frames, 256).T, "name": name}


def test_a_perfect_copy_has_perfect_figures():
    report = evaluate(Parrot(), [clip(120, 90, "low"), clip(180, 120, "high")])
    figures = report.figures()
    assert set(MEAN_FIGURES) <= figures.keys()
    assert figures["nats_per_sample"] == -2.0
    assert figures["stoi"] == pytest.approx(1, abs=1e-6)
    assert figures["mstft"] == figures["mcd"] == figures["f0_rmse"] == 0
    assert figures["vuv_f1"] == 1 and figures["real_time_factor"] > 0
    assert [c.name for c in report.clips] == ["low", "high"]
    assert report.clips[1].seconds == pytest.approx(120 * 256 / 22050)
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_worse_copy_has_worse_figures():
    data = [clip(120, 90, "low")]
    good, bad = (evaluate(Parrot(), data, temperature=t).figures() for t in (0.0, 0.05))
    assert bad["stoi"] < good["stoi"] and bad["mstft"] > good["mstft"] and bad["mcd"] > good["mcd"]


def test_a_clip_too_short_for_metrics_keeps_its_likelihood(caplog):
    report = evaluate(Parrot(), [clip(120, 2, "click"), clip(180, 120, "word")])
    assert report.clips[0].metrics == {} and "click" in caplog.text
    assert report.figures()["stoi"] == pytest.approx(1, abs=1e-6)
    alone = evaluate(Parrot(), [clip(120, 2, "click")]).to_dict()
    assert alone["stoi"] is None and alone["nats_per_sample"] == -2.0


def test_means_are_weighted_as_they_should_be():
    worse = {"stoi": 0.5, "pesq": None, "mstft": 1.0, "mcd": 2.0, "f0_rmse": None, "vuv_f1": None}
    better = worse | {"stoi": 0.7, "f0_rmse": 3.0}
    clips = [
        ClipFigures("a", 100, 1.0, nats=100.0, synthesis_seconds=2.0, metrics=worse),
        ClipFigures("b", 300, 3.0, nats=900.0, synthesis_seconds=2.0, metrics=better),
    ]
    report = Report(clips, exact=True)
    figures = report.figures()
    assert figures["nats_per_sample"] == 2.5
    assert figures["real_time_factor"] == 1.0
    assert figures["stoi"] == pytest.approx(0.6)
    assert figures["f0_rmse"] == 3.0
    assert figures["pesq"] is None
    lines = report.table().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].split()[:4] == ["all", "2", "4.00", "2.5000"]


def test_the_yardsticks_of_the_same_clips_stand_beside_the_model():
    data = [clip(120, 40, "short"), clip(180, 90, "long")]
    report = evaluate(Parrot(), data, seed=3)
    expected = yardsticks(data, Parrot.mel_config, seed=3)
    assert report.yardsticks() == pytest.approx(expected) and list(expected) == list(YARDSTICKS)
    written = report.to_dict()
    assert written["yardsticks"] == report.yardsticks()
    first = yardsticks(data[:1], Parrot.mel_config, seed=3)
    assert written["per_clip"][0]["yardsticks"] == pytest.approx(first)
    lines = report.yardstick_table().splitlines()
    assert lines[0].split()[-1] == "nats/sample"
    assert [line.split()[-1] for line in lines[2:6]] == [f"{nats:.4f}" for nats in expected.values()]
    assert len({len(line) for line in lines[:6]}) == 1


def test_a_yardstick_that_a_clip_lacks_is_a_dash():
    rest = {"synthesis_seconds": 1.0, "metrics": {}}
    clips = [
        ClipFigures("a", 100, 1.0, nats=1.0, yardsticks={"white": 100.0, "white_per_frame": 1.0}, **rest),
        ClipFigures("b", 300, 3.0, nats=1.0, yardsticks={"white": 500.0}, **rest),
    ]
    report = Report(clips, exact=True)
    assert report.yardsticks() == {"white": 1.5}
    assert [line.split()[-1] for line in report.yardstick_table().splitlines()[2:6]] == ["1.5000", "-", "-", "-"]
    json.dumps(report.to_dict(), allow_nan=False)


def test_no_clips_are_an_error():
    with pytest.raises(InputError, match="at least one clip"):
        evaluate(Parrot(), [])


def test_each_mel_is_vocoded_from_the_same_seed_and_with_the_same_options():
    model = Parrot()
    synthesize = Synthesizer(model, temperature=0.1, seed=4, chunk=7)
    mel = clip(120, 5, "a")["mel"]
    first, second = synthesize(mel), synthesize(mel)
    assert torch.equal(first.waveform, second.waveform) and first.seconds > 0
    assert not torch.equal(first.waveform, Synthesizer(model, temperature=0.1, seed=5)(mel).waveform)
    assert model.calls[0] == (5, 0.1, 7)
    quiet = Synthesizer(model, denoise=0.25)(mel).waveform
    np.testing.assert_allclose(quiet, 0.75 * clip(120, 5, "a")["waveform"], rtol=1e-5)


@pytest.mark.parametrize(
    "option", [{"temperature": -1}, {"temperature": float("nan")}, {"denoise": -0.1}, {"chunk": 0}]
)
def test_options_out_of_range_are_refused(option):
    with pytest.raises(InputError, match="expected"):
        Synthesizer(Parrot(), **option)


def test_mean_stoi_is_that_of_the_report_and_passes_over_what_is_too_short():
    data = [clip(120, 90, "low"), clip(180, 120, "high")]
    expected = evaluate(Parrot(), data, temperature=0.05).figures()["stoi"]
    assert mean_stoi(Parrot(), [*data, clip(120, 4, "click")], temperature=0.05) == pytest.approx(expected)
    assert math.isnan(mean_stoi(Parrot(), [clip(120, 4, "click")]))
