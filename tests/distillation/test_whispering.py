"""A whisper is told from a voice."""

import math

import numpy as np
import pytest
import scipy.signal
import torch

from waveflow.distillation import periodicity, voice_kept
from waveflow.errors import InputError

RATE = 22050


def vowel(excitation):
    """Excitation through three formants."""
    for centre, width in ((700, 90), (1200, 110), (2600, 160)):
        radius, angle = math.exp(-math.pi * width / RATE), 2 * math.pi * centre / RATE
        excitation = scipy.signal.lfilter([1], [1, -2 * radius * math.cos(angle), radius**2], excitation)
    return torch.tensor(0.1 * excitation / excitation.std(), dtype=torch.float32)[None]


def voiced(pitch=120.0, seconds=1.0):
    """A vowel whose pitch glides."""
    t = np.arange(int(seconds * RATE)) / RATE
    phase = np.cumsum(pitch * (1 + 0.2 * t) / RATE)
    return vowel(np.diff(np.floor(phase), prepend=0))


def whispered(seconds=1.0, seed=0):
    return vowel(np.random.default_rng(seed).standard_normal(int(seconds * RATE)))


@pytest.mark.parametrize("pitch", [80, 120, 250, 380])
def test_a_voice_is_periodic_and_a_whisper_is_not(pitch):
    assert periodicity(voiced(pitch), RATE).median() > 0.9
    assert periodicity(whispered(), RATE).median() < 0.55


def test_a_sine_is_fully_periodic_and_silence_not_at_all():
    t = torch.arange(RATE) / RATE
    assert periodicity(torch.sin(2 * math.pi * 200 * t)[None], RATE).min() > 0.95
    assert not periodicity(torch.zeros(2, RATE), RATE).any()


def test_the_correlation_is_that_of_a_naive_loop():
    x = voiced(150, 0.2)
    low = torch.nn.functional.avg_pool1d(x.double()[None], 14, 3)[0, 0].numpy()
    window, hop, first, last = 882 // 3, 220 // 3, 55 // 3, 315 // 3
    found = periodicity(x, RATE)[0]
    for i in (0, 3, len(found) - 1):
        frame = low[i * hop : i * hop + window + last]
        frame = frame - frame.mean()
        best = max(
            frame[:window]
            @ frame[lag : lag + window]
            / np.sqrt((frame[:window] @ frame[:window]) * (frame[lag : lag + window] @ frame[lag : lag + window]))
            for lag in range(first, last + 1)
        )
        assert found[i].item() == pytest.approx(best, abs=1e-5)


def test_how_much_voice_is_kept():
    real = torch.cat([voiced(), 0.001 * whispered(0.5), voiced(200)], 1)
    whisper = torch.cat([whispered(1.0, 1), 0.001 * whispered(0.5), whispered(1.0, 2)], 1)
    half = torch.cat([voiced(130), 0.001 * whispered(0.5), whispered(1.0, 3)], 1)
    assert voice_kept(real, real, RATE) == 1
    assert voice_kept(0.3 * real + 0.01 * torch.randn(real.shape), real, RATE) > 0.9
    assert voice_kept(whisper, real, RATE) < 0.25
    assert voice_kept(half, real, RATE) == pytest.approx(0.55, abs=0.1)
    assert voice_kept(real, torch.zeros_like(real), RATE) is None


def test_bad_waveforms_are_refused():
    with pytest.raises(InputError, match="at least 1323 samples, got"):
        periodicity(torch.zeros(1, 500), RATE)
    with pytest.raises(InputError, match="as long as its recording"):
        voice_kept(torch.zeros(1, 3000), torch.zeros(1, 4000), RATE)
