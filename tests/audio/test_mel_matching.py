"""Matching a mel: what already has it stays, what has not comes nearer by librosa's measure too."""

import librosa
import numpy as np
import pytest
import torch

from waveflow.audio import MelConfig, MelMatcher, MelSpectrogram
from waveflow.errors import InputError

CONFIGS = {
    "tacotron2": MelConfig(),
    "hifigan": MelConfig.from_preset("hifigan-22k"),
    "powers in base 10, short window": MelConfig(
        win_length=800, hop_length=200, power=2.0, log_base="10", log_floor=1e-10
    ),
    "long frames": MelConfig(n_fft=2048, hop_length=300, win_length=1200),
}


def noise(config, frames=12, batch=2, tail=0):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(batch, frames * config.hop_length + tail, generator=generator)


def tone(config, frequencies, frames=12):
    time = torch.arange(frames * config.hop_length) / config.sample_rate
    return sum(0.1 * torch.sin(2 * torch.pi * f * time) for f in frequencies)[None]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tail", [0, 7])
def test_what_has_the_mel_stays(name, tail):
    config = CONFIGS[name]
    waveform = noise(config, tail=tail)
    mel = MelSpectrogram(config)(waveform)
    matcher = MelMatcher(config)
    torch.testing.assert_close(matcher(waveform, mel, 3), waveform, rtol=0, atol=1e-6)
    one_less = mel[..., : waveform.shape[1] // config.hop_length]
    torch.testing.assert_close(matcher(waveform, one_less, 3), waveform, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tail", [0, 7])
@pytest.mark.parametrize("chunk", [1, 5, 40])
def test_chunks_give_what_the_whole_gives(name, tail, chunk):
    config = CONFIGS[name]
    waveform = noise(config, frames=40, tail=tail)
    mel = torch.randn(2, 80, config.frames(waveform.shape[1]), generator=torch.Generator().manual_seed(1)) - 3
    matcher = MelMatcher(config)
    whole = matcher(waveform, mel, 2)
    assert (whole - waveform).std() > 0.1 * waveform.std()
    torch.testing.assert_close(matcher(waveform, mel, 2, chunk), whole, rtol=0, atol=1e-6 * whole.abs().max().item())
    one_less = mel[..., : waveform.shape[1] // config.hop_length]
    torch.testing.assert_close(
        matcher(waveform, one_less, 2, chunk),
        matcher(waveform, one_less, 2),
        rtol=0,
        atol=1e-6 * whole.abs().max().item(),
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_fainter_copy_gets_its_level_back(name):
    """The asked mel is that of the waveform itself, so the gain of every bin is known."""
    config = CONFIGS[name]
    waveform = noise(config)
    mel = MelSpectrogram(config)(waveform)
    found, expected = (heard(config, x) for x in (MelMatcher(config)(waveform / 3, mel, 1), waveform))
    torch.testing.assert_close(found, expected, rtol=3e-3, atol=0)


def heard(config, x):
    """What of a waveform lies well within the bands."""
    spectrum = torch.fft.rfft(x)
    bins = torch.fft.rfftfreq(x.shape[1], 1 / config.sample_rate)
    inside = (bins > 300) & (bins < 7000)
    return torch.view_as_real(spectrum * inside).abs().mean((1, 2))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_round_comes_nearer_by_librosa(name):
    config = CONFIGS[name]
    asked = tone(config, [220, 440, 660, 1320])[0] + 0.3 * noise(config, batch=1)[0]

    def distance(x):
        bands = [
            librosa.feature.melspectrogram(
                y=y.numpy(), sr=config.sample_rate, n_fft=config.n_fft, hop_length=config.hop_length,
                win_length=config.win_length, power=config.power, n_mels=config.n_mels, fmin=config.f_min,
                fmax=config.f_max,
            )
            for y in (x, asked)
        ]  # fmt: skip
        return np.abs(np.diff(np.log(np.maximum(bands, 1e-6)), axis=0)).mean()

    matcher, mel = MelMatcher(config), MelSpectrogram(config)(asked[None])
    generated = torch.randn(1, len(asked), generator=torch.Generator().manual_seed(1)) / 20
    found = [distance(matcher(generated, mel, rounds)[0]) for rounds in (0, 1, 3, 10)]
    assert found[0] > 2 * found[1] > 2 * found[2] > 2 * found[3]


def test_what_no_band_hears_stays():
    config = MelConfig()
    high, low = tone(config, [9500.0]), tone(config, [500.0])
    mel = MelSpectrogram(config)(low / 8)
    found = torch.fft.rfft(MelMatcher(config)(high + low, mel, 1))[0].abs()
    before = torch.fft.rfft(high + low)[0].abs()
    bins = torch.fft.rfftfreq(high.shape[1], 1 / config.sample_rate)
    kept, scaled = (bins > 9000), (bins > 450) & (bins < 550)
    assert found[kept].norm().item() == pytest.approx(before[kept].norm().item(), rel=1e-3)
    assert found[scaled].norm().item() == pytest.approx(before[scaled].norm().item() / 8, rel=0.1)


def test_silence_stays_silence_and_can_be_asked_for():
    config = MelConfig()
    matcher, silent = MelMatcher(config), torch.zeros(1, 3072)
    assert not matcher(silent, torch.zeros(1, 80, 12), 3).any()
    spectrogram = MelSpectrogram(config)
    asked, loud = spectrogram(silent), tone(config, [400.0, 3000.0])
    assert (spectrogram(loud) - asked).mean() > 3
    assert (spectrogram(matcher(loud, asked, 5)) - asked).mean() < 0.1


def test_items_do_not_see_each_other_and_dtypes_return():
    config = MelConfig()
    waveform, mel = noise(config), torch.randn(2, 80, 12) - 5
    matcher = MelMatcher(config)
    together = matcher(waveform, mel)
    torch.testing.assert_close(matcher(waveform[1:], mel[1:])[0], together[1])
    for dtype in (torch.float64, torch.bfloat16):
        again = matcher(waveform.to(dtype), mel.to(dtype))
        assert again.dtype == dtype
    assert torch.equal(matcher(waveform, mel, rounds=0), waveform)
    assert matcher(waveform[:0], mel[:0]).shape == (0, 3072)


def test_bad_input_is_named():
    matcher = MelMatcher(MelConfig())
    mel = torch.zeros(1, 80, 8)
    with pytest.raises(InputError, match="0 rounds or more, got -1"):
        matcher(torch.zeros(1, 2048), mel, -1)
    with pytest.raises(InputError, match="chunks of at least 1 frame, got 0"):
        matcher(torch.zeros(1, 2048), mel, 1, 0)
    with pytest.raises(InputError, match=r"waveforms \(B, 513 or more\) of floats, got torch.float32 \(1, 512\)"):
        matcher(torch.zeros(1, 512), mel[..., :2])
    with pytest.raises(InputError, match=r"of floats, got torch\.int16"):
        matcher(torch.zeros(1, 2048, dtype=torch.int16), mel)
    for wrong in (mel[..., :7], mel[:, :79], mel.expand(2, -1, -1), mel[0], torch.zeros(1, 80, 10)):
        with pytest.raises(InputError, match=r"mels \(1, 80, 8 or 9\) for waveforms \(1, 2048\)"):
            matcher(torch.zeros(1, 2048), wrong)
