"""Nats per sample against closed forms and against the model called by hand."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from waveflow.audio import MelConfig
from waveflow.data import WholeClips, find_clips, split_clips
from waveflow.errors import InputError
from waveflow.evaluation import Vocoder, dequantize, nats_per_sample
from waveflow.models import WaveGlow

SCALE = 0.1
SPEECH = Path(__file__).parents[2] / "samples" / "speech"


class White(nn.Module):
    """White noise of a known scale: the likelihood is a formula."""

    mel_config = MelConfig()

    def __init__(self, exact=True):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(SCALE))
        self.exact, self.modes, self.seen = exact, [], []

    def log_prob(self, waveform, mel):
        assert not torch.is_grad_enabled() and waveform.shape[1] == mel.shape[2] * 256
        self.modes.append(self.training)
        self.seen.append(waveform[0])
        return torch.distributions.Normal(0.0, self.scale).log_prob(waveform).sum(1)


def clips(*frames):
    items = []
    for i, count in enumerate(frames):
        grid = torch.randint(-3000, 3000, (256 * count,), generator=torch.Generator().manual_seed(i)) / 32768
        items.append({"waveform": grid, "mel": torch.zeros(80, count), "name": f"clip {i}"})
    return items


def test_equals_the_closed_form():
    data = clips(3, 10)
    result = nats_per_sample(White(), data)
    x = torch.cat([clip["waveform"] for clip in data]).double()
    # E (x + u)^2 = x^2 + LSB^2 / 12; the noise itself averages out over 3328 samples.
    square = (x.square().mean() + (1 / 32768) ** 2 / 12).item()
    assert result.nats_per_sample == pytest.approx(
        -0.5 * math.log(2 * math.pi) - math.log(SCALE) - square / (2 * SCALE**2), abs=1e-5
    )
    assert result.samples == 13 * 256 and result.exact


def test_longer_clips_count_for_more():
    short, long = clips(1, 9)
    one = nats_per_sample(White(), [short]).nats_per_sample
    # The noise follows from the place of a clip, so the other one has to stand in second place.
    model = White()
    nats_per_sample(model, [short, long])
    other = torch.distributions.Normal(0.0, SCALE).log_prob(model.seen[1]).mean().item()
    assert nats_per_sample(White(), [short, long]).nats_per_sample == pytest.approx(0.1 * one + 0.9 * other, abs=1e-5)


def test_noise_is_one_step_of_16_bits_and_its_own():
    data = clips(40)
    torch.manual_seed(5)
    model = White()
    before = torch.get_rng_state()
    nats_per_sample(model, data)
    assert torch.equal(torch.get_rng_state(), before)
    noise = (model.seen[0] - data[0]["waveform"]) * 32768
    assert -0.501 < noise.min() < -0.49 and 0.49 < noise.max() < 0.501
    assert noise.var() == pytest.approx(1 / 12, rel=0.05)
    nats_per_sample(model, data * 2)
    assert not torch.equal(model.seen[1], model.seen[2])
    assert torch.equal(dequantize(data[0]["waveform"], (0, 0)), model.seen[0])
    assert not torch.equal(dequantize(data[0]["waveform"], (1, 0)), model.seen[0])
    assert not torch.equal(dequantize(data[0]["waveform"], (0, 1)), model.seen[0])


def test_evaluates_in_evaluation_mode_and_puts_it_back():
    model = White().train()
    nats_per_sample(model, clips(1))
    assert model.modes == [False] and model.training


def test_a_bound_is_called_a_bound():
    assert not nats_per_sample(White(exact=False), clips(1)).exact


def test_clips_are_taken_one_at_a_time():
    alive = []

    def stream():
        for clip in clips(1, 1, 1):
            alive.append(len(model.seen))
            yield clip

    model = White()
    nats_per_sample(model, stream())
    assert alive == [0, 1, 2]


def test_no_clips_and_no_numbers_are_errors():
    with pytest.raises(InputError, match="at least one clip"):
        nats_per_sample(White(), [])
    model = White()
    model.scale.data.fill_(float("nan"))
    model.log_prob = lambda waveform, mel: waveform.sum(1) * float("nan")
    with pytest.raises(FloatingPointError, match="clip 1"):
        nats_per_sample(model, clips(1, 1)[1:])


def test_waveglow_for_inference_gives_the_same():
    data = WholeClips(split_clips(find_clips(SPEECH))[1][:1], MelConfig(), progress=False)
    torch.manual_seed(2)
    model = WaveGlow(flows=3, group=8, early_every=2, layers=2, channels=8, upsampler="linear", scale="tanh_exp")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert isinstance(model, Vocoder)
    plain = nats_per_sample(model, data)
    frozen = nats_per_sample(model.for_inference(), data)
    assert frozen.nats_per_sample == pytest.approx(plain.nats_per_sample, abs=1e-5)
    clip = data[0]
    by_hand = model.log_prob(dequantize(clip["waveform"], (0, 0))[None], clip["mel"][None]) / len(clip["waveform"])
    assert plain.nats_per_sample == pytest.approx(by_hand.item(), abs=1e-6)
