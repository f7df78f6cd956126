"""The denoiser against a naive frame-by-frame computation, and on a vocoder with a known tone."""

import numpy as np
import pytest
import torch

from waveflow.audio import Denoiser
from waveflow.errors import InputError


def noise(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def naive(x: np.ndarray, bias: np.ndarray, strength: float, n_fft: int, hop: int) -> np.ndarray:
    """Windowed FFT of every frame, magnitude reduced, overlap-added and divided by the summed squared window."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    padded = np.pad(x, n_fft // 2, mode="reflect")
    total, weight = np.zeros(len(padded)), np.zeros(len(padded))
    for start in range(0, len(padded) - n_fft + 1, hop):
        spectrum = np.fft.rfft(padded[start : start + n_fft] * window)
        magnitude = np.maximum(np.abs(spectrum) - strength * bias, 0)
        frame = np.fft.irfft(magnitude * np.exp(1j * np.angle(spectrum)))
        total[start : start + n_fft] += frame * window
        weight[start : start + n_fft] += window**2
    inside = slice(n_fft // 2, n_fft // 2 + len(x))
    return total[inside] / weight[inside]


@pytest.mark.parametrize(("n_fft", "hop", "samples"), [(1024, 256, 5000), (64, 16, 640)])
def test_equals_naive_computation(n_fft, hop, samples):
    bias = torch.rand(n_fft // 2 + 1, dtype=torch.float64)
    x = noise(2, samples).double()
    clean = Denoiser(bias, n_fft, hop)(x, 0.7)
    for row, expected in zip(clean.numpy(), x.numpy(), strict=True):
        np.testing.assert_allclose(row, naive(expected, bias.numpy(), 0.7, n_fft, hop), atol=1e-10)


@pytest.mark.parametrize("samples", [513, 1000, 16384, 16640, 22050])
def test_length_is_kept_and_no_bias_changes_nothing(samples):
    x = noise(1, samples)
    assert (Denoiser(torch.zeros(513))(x, 1.0) - x).abs().max() < 1e-6


def test_the_tone_of_a_vocoder_goes():
    hum = 0.01 * torch.cos(2 * torch.pi / 8 * torch.arange(88 * 256))[None]
    seen = []

    def vocode(mel):
        seen.append(mel)
        return hum

    denoise = Denoiser.from_vocoder(vocode)
    assert seen[0].shape == (1, 80, 88) and seen[0].eq(0).all()
    voice = 0.3 * torch.sin(torch.arange(22528.0) * 0.1)[None]
    clean = denoise(voice + hum, 1.0)
    inside = slice(1024, -1024)
    assert (clean - voice)[:, inside].abs().max() < 1e-3
    weak = denoise(voice + hum, 0.5) - voice
    assert weak[:, inside].abs().max() == pytest.approx(0.005, rel=0.05)


def test_bias_is_the_first_frame():
    x = noise(1, 4000).double()
    padded = np.pad(x[0].numpy(), 512, mode="reflect")[:1024]
    expected = np.abs(np.fft.rfft(padded * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024))))
    np.testing.assert_allclose(Denoiser.from_waveform(x).bias, expected, atol=1e-12)
    assert torch.equal(Denoiser.from_waveform(x[0]).bias, Denoiser.from_waveform(x).bias)


def test_strength_0_is_the_identity_and_much_strength_is_silence():
    denoise, x = Denoiser(torch.ones(513)), noise(2, 3000)
    assert torch.equal(denoise(x, 0.0), x)
    assert denoise(x, 1e6).abs().max() == 0
    assert denoise(torch.zeros(1, 3000)).isfinite().all()


def test_narrow_dtypes_are_computed_in_float32():
    denoise, x = Denoiser(torch.rand(513)), noise(1, 3000)
    half = denoise.to(torch.bfloat16)(x.bfloat16())
    assert half.dtype == torch.bfloat16 and denoise.bias.dtype == torch.float32
    torch.testing.assert_close(half.float(), denoise(x), atol=4e-3, rtol=0)
    assert denoise.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Denoiser(torch.ones(513))(noise(1, 3000), -0.1), "strength of 0 or more, got -0.1"),
        (lambda: Denoiser(torch.ones(513))(noise(1, 3000), float("nan")), "got nan"),
        (lambda: Denoiser(torch.ones(513))(noise(1, 512)), "more than 512 samples, got 512"),
        (lambda: Denoiser(torch.ones(513))(noise(1, 3000)[0]), r"\(3000,\)"),
        (lambda: Denoiser(torch.ones(512)), r"magnitudes \(513,\) as bias, got \(512,\)"),
        (lambda: Denoiser(-torch.ones(513)), "finite magnitudes"),
        (lambda: Denoiser.from_waveform(noise(2, 3000)), r"\(2, 3000\)"),
        (lambda: Denoiser.from_waveform(torch.full((1, 3000), float("nan"))), "finite magnitudes"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(InputError, match=message):
        call()
