"""From the bands of a mel back to a spectrum."""

import math

import numpy as np
import pytest
import torch

from waveflow.audio import MelConfig, MelEnvelope, MelSpectrogram, autocorrelation

RAYLEIGH = math.log(math.pi / 4)  # a mean magnitude squared, against the mean square


def noise(seconds, rate=22050, std=0.1):
    return std * torch.randn(1, int(rate * seconds), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MelConfig(), RAYLEIGH),
        (MelConfig.from_preset("bigvgan-24k"), RAYLEIGH),
        (MelConfig.from_preset("vocos-24k"), RAYLEIGH),
        (MelConfig(power=2.0), 0.0),
        (MelConfig(log_base="10", win_length=600), RAYLEIGH),
        (MelConfig(norm=None, mel_scale="htk", n_mels=40), RAYLEIGH),
    ],
)
def test_the_level_of_white_noise_is_its_variance(config, expected):
    mel = MelSpectrogram(config).double()(noise(20))
    level = MelEnvelope(config)(mel).exp().mean(2).log()[0]
    spread = 0.15 if config.power == 1 else 0.08  # the logarithm of a mean of few bins is low
    assert (level - math.log(0.01) - expected).abs().max() < 2 * spread
    assert abs(level.mean() - math.log(0.01) - expected) < spread


def test_follows_a_sloping_spectrum_up_to_the_highest_band():
    config = MelConfig()
    spectrum = torch.fft.rfft(noise(20))
    frequency = torch.linspace(0, 11025, spectrum.shape[1], dtype=torch.float64)
    gain = torch.exp(-frequency / 2500)
    waveform = torch.fft.irfft(spectrum * gain)
    level = MelEnvelope(config)(MelSpectrogram(config).double()(waveform)).exp().mean(2).log()[0]
    bins = torch.linspace(0, 11025, 513, dtype=torch.float64)
    inside = (bins > 60) & (bins < 7600)
    expected = math.log(0.01) + RAYLEIGH - 2 * bins / 2500
    assert (level - expected)[inside].abs().max() < 0.4
    # nothing is known above 8 kHz: the mean power of the top 16 bands, whose centres start at 3.9 kHz
    assert (level[bins > 8300] - level[-1]).abs().max() < 1e-9
    top = level[(bins > 3900) & (bins < 7700)]
    assert top.min() < level[-1] < top.max()


def test_bands_that_hold_no_bin_are_passed_over():
    config = MelConfig(n_fft=256, win_length=256, hop_length=64)
    envelope = MelEnvelope(config)
    assert len(envelope.filled) < config.n_mels
    assert envelope(torch.full((1, 80, 3), -3.0)).isfinite().all()


def test_mels_below_the_floor_are_silence():
    envelope = MelEnvelope(MelConfig())
    floor = envelope(torch.full((1, 80, 2), math.log(1e-5)))
    torch.testing.assert_close(envelope(torch.full((1, 80, 2), -math.inf)), floor)


def test_stays_in_double_precision_and_out_of_checkpoints():
    envelope = MelEnvelope(MelConfig())
    mel = torch.randn(1, 80, 4, generator=torch.Generator().manual_seed(1)) - 5
    expected = envelope(mel)
    for cast in (envelope.float, envelope.half, envelope.bfloat16):
        cast()
        assert torch.equal(envelope(mel), expected) and expected.dtype == torch.float64
    assert not envelope.state_dict()


def test_autocorrelation_is_the_inverse_transform():
    log_power = torch.randn(2, 17, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = np.fft.irfft(log_power.exp().numpy(), axis=1)[:, :9]
    np.testing.assert_allclose(autocorrelation(log_power, 9).numpy(), expected, atol=1e-14)
