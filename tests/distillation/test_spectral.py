"""Spectral losses against librosa, the reported metric, and finite differences of nothing at silence."""

import librosa
import numpy as np
import pytest
import torch

from waveflow.audio.metrics import stft_distance
from waveflow.distillation import multi_resolution_stft, power_loss
from waveflow.errors import InputError


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(6000) / 22050
    tones = torch.stack([0.3 * torch.sin(440 * 6.28 * time), 0.2 * torch.sin(5000 * 6.28 * time)]).double()
    return [tones + 0.05 * torch.randn(2, 6000, generator=generator).double() for _ in range(2)]


def amplitudes(waveform: torch.Tensor) -> np.ndarray:
    return np.abs(librosa.stft(waveform.numpy(), n_fft=1024, hop_length=256, window="hann", pad_mode="reflect"))


def test_power_loss_is_that_of_librosa(pair):
    x, reference = pair
    ours = power_loss(x, reference)
    assert ours.shape == (2,)
    for i in range(2):
        squared = (amplitudes(x[i]) - amplitudes(reference[i])) ** 2
        assert ours[i].item() == pytest.approx(squared.mean(), rel=1e-6)
        low = power_loss(x, reference, low_bins=139)[i].item()
        assert low == pytest.approx(squared.mean() + 0.5 * squared[:139].mean(), rel=1e-6)


def test_a_sine_peaks_at_a_quarter_of_the_frame():
    time = torch.arange(8192).double()
    sine = 0.5 * torch.sin(2 * torch.pi * 64 / 1024 * time)[None]
    loss = power_loss(sine, torch.zeros_like(sine))
    # Bins 63, 64, 65 of a Hann window: N/8, N/4, N/8 of amplitude 0.5, but for the reflected ends.
    assert loss.item() == pytest.approx((128**2 + 2 * 64**2) / 513, rel=0.02)


def test_multi_resolution_stft_is_the_metric(pair):
    x, reference = pair
    for i in range(2):
        metric = stft_distance(reference[i], x[i])
        assert multi_resolution_stft(x, reference)[i].item() == pytest.approx(metric, rel=1e-6)
    assert multi_resolution_stft(x, x).abs().max() == 0


@pytest.mark.parametrize("loss", [power_loss, multi_resolution_stft])
def test_gradients_are_those_of_finite_differences(loss, pair):
    x, reference = pair[0][:1], pair[1][:1]
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x, reference).sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        step = 1e-8 * direction
        slope = (loss(x + step, reference) - loss(x - step, reference)).item() / 2e-8
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("loss", [power_loss, multi_resolution_stft])
@pytest.mark.parametrize(("ours", "theirs"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_silence_and_equality_leave_finite_gradients(loss, ours, theirs, pair):
    x = (ours * pair[0]).float().requires_grad_()
    value = loss(x, (theirs * pair[0]).float())
    value.sum().backward()
    assert value.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("loss", [power_loss, multi_resolution_stft])
def test_bad_input_is_refused(loss):
    with pytest.raises(InputError, match=r"\(B, T\), got \(2, 1, 4000\)"):
        loss(torch.zeros(2, 1, 4000), torch.zeros(2, 1, 4000))
    with pytest.raises(InputError, match=r"got \(2, 4000\) and \(2, 4001\)"):
        loss(torch.zeros(2, 4000), torch.zeros(2, 4001))
    with pytest.raises(InputError, match="samples, got 512"):
        loss(torch.zeros(2, 512), torch.zeros(2, 512))


def test_low_bins_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"low_bins of 0 ... 513, got 514"):
        power_loss(torch.zeros(1, 4000), torch.zeros(1, 4000), low_bins=514)
