"""Mels against librosa and torchaudio, and what is refused."""

import dataclasses
import logging
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from waveflow.audio import MEL_PRESETS, MelConfig, MelSpectrogram, band_centres, check_mel, mel_filterbank
from waveflow.errors import InputError

SPEECH = Path(__file__).parents[2].parent / "shared/data/ljspeech"

CONFIGS = dict(MEL_PRESETS) | {
    "ParallelWaveGAN": MelConfig(f_min=80.0, f_max=7600.0, log_base="10", log_floor=1e-10),
    "HTK powers, short window": MelConfig(mel_scale="htk", norm=None, power=2.0, win_length=800, hop_length=200),
    "HTK scale, unit area, odd hop": MelConfig(mel_scale="htk", n_fft=512, win_length=400, hop_length=125, n_mels=40),
    "wide hop": MelConfig(n_fft=2048, hop_length=2048, win_length=2048, padding="same"),
}
BY_NAME = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """Pink-like noise under a slow envelope, silent at the end: all levels from 0.5 to nothing."""
    generator = np.random.default_rng(seed)
    x = np.cumsum(generator.standard_normal(samples)) * 0.01 + 0.1 * generator.standard_normal(samples)
    x = x * np.linspace(1, 0, samples) ** 2
    return 0.5 * x / np.abs(x).max()


def librosa_mel(x: np.ndarray, c: MelConfig) -> np.ndarray:
    centred = c.padding == "center"
    if not centred:
        x = np.pad(x, (c.n_fft - c.hop_length) // 2, mode="reflect")
    frames = {"n_fft": c.n_fft, "hop_length": c.hop_length, "win_length": c.win_length}
    spectrum = librosa.stft(x, **frames, center=centred, pad_mode="reflect", dtype=np.complex128)
    mel = librosa.feature.melspectrogram(
        S=np.sqrt(np.abs(spectrum) ** 2 + c.magnitude_epsilon) ** c.power,
        sr=c.sample_rate,
        n_mels=c.n_mels,
        fmin=c.f_min,
        fmax=c.f_max,
        htk=c.mel_scale == "htk",
        norm=c.norm,
        dtype=np.float64,
    )
    return {"e": np.log, "10": np.log10}[c.log_base](np.maximum(mel, c.log_floor))


def to_double(module: torch.nn.Module, c: MelConfig) -> torch.nn.Module:
    """torchaudio computes its window and filters in float32; give it librosa's."""
    module = module.double()
    module.spectrogram.window = torch.from_numpy(librosa.filters.get_window("hann", c.win_length))
    kind = {"htk": c.mel_scale == "htk", "norm": c.norm, "fmin": c.f_min, "fmax": c.f_max, "dtype": np.float64}
    fb = librosa.filters.mel(sr=c.sample_rate, n_fft=c.n_fft, n_mels=c.n_mels, **kind)
    assert np.abs(module.mel_scale.fb.numpy().T - fb).max() < 1e-6 * fb.max() + 1e-5
    module.mel_scale.fb = torch.from_numpy(fb.T.copy())
    return module


@BY_NAME
def test_equals_librosa_in_float64(config):
    x = noise(6000)
    mel = MelSpectrogram(config).double()(torch.from_numpy(x)[None])[0].numpy()
    reference = librosa_mel(x, config)
    assert mel.shape == reference.shape == (config.n_mels, config.frames(6000))
    assert np.abs(mel - reference).max() < 1e-6


@pytest.mark.parametrize("name", ["tacotron2", "vocos-24k", "ParallelWaveGAN", "HTK powers, short window"])
def test_equals_torchaudio_in_float64(name):
    c = CONFIGS[name]
    x = torch.from_numpy(noise(6000, seed=1))[None]
    frames = {"n_fft": c.n_fft, "win_length": c.win_length, "hop_length": c.hop_length}
    bands = {"n_mels": c.n_mels, "f_min": c.f_min, "f_max": c.f_max, "norm": c.norm, "mel_scale": c.mel_scale}
    theirs = torchaudio.transforms.MelSpectrogram(c.sample_rate, **frames, **bands, power=c.power)
    floored = to_double(theirs, c)(x).clamp_min(c.log_floor)
    reference = floored.log() if c.log_base == "e" else floored.log10()
    assert (MelSpectrogram(c).double()(x) - reference).abs().max() < 1e-6


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs the LJ Speech subset")
@pytest.mark.parametrize("preset", MEL_PRESETS)
def test_float32_on_speech(preset):
    config = MelConfig.from_preset(preset)
    for path in sorted(SPEECH.rglob("*.flac"))[:3]:
        x, _ = soundfile.read(path)
        mel = MelSpectrogram(config)(torch.from_numpy(x).float()[None])[0].numpy()
        assert np.abs(mel - librosa_mel(x, config)).max() < 1e-5


def test_dtype_moves_the_constants_exactly():
    x = torch.from_numpy(noise(4000))[None]
    there_and_back = MelSpectrogram(MelConfig()).bfloat16().float().double()
    assert torch.equal(there_and_back(x), MelSpectrogram(MelConfig()).double()(x))
    module = MelSpectrogram(MelConfig()).bfloat16()
    assert module.filterbank.dtype == torch.float32
    assert not module.state_dict()


def test_autocast_leaves_it_in_float32():
    x, module = torch.from_numpy(noise(4000)).float()[None], MelSpectrogram(MelConfig())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(x), MelSpectrogram(MelConfig())(x))


def test_batch_items_are_independent():
    x = torch.from_numpy(np.stack([noise(3000, seed) for seed in range(3)]))
    module = MelSpectrogram(MelConfig()).double()
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]), atol=1e-9, rtol=0)
    assert module(x[:0]).shape == (0, 80, 12)


@pytest.mark.parametrize("preset", ["tacotron2", "hifigan-22k"])
def test_gradient(preset):
    config = MelConfig.from_preset(preset, n_fft=64, win_length=64, hop_length=16, n_mels=8)
    x = torch.from_numpy(noise(100))[None].requires_grad_()
    assert torch.autograd.gradcheck(MelSpectrogram(config).double(), x)


def test_gradient_at_silence_is_finite():
    x = torch.zeros(1, 2000, requires_grad=True)
    MelSpectrogram(MelConfig())(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("padding", ["center", "same"])
@pytest.mark.parametrize("hop", [64, 100])
def test_frames_are_counted_exactly(padding, hop):
    config = MelConfig(n_fft=256, win_length=256, hop_length=hop, n_mels=8, padding=padding)
    module = MelSpectrogram(config)
    for samples in range(config.min_samples, config.min_samples + 2 * hop + 2):
        assert module(torch.zeros(1, samples)).shape[2] == config.frames(samples)
    with pytest.raises(InputError, match=f"at least {config.min_samples} samples"):
        module(torch.zeros(1, config.min_samples - 1))
    assert config.samples(7) == 7 * hop
    assert config.frames(config.samples(7)) == 7 + (padding == "center")


def test_frame_is_centred_where_the_configuration_says():
    for preset, centre in (("tacotron2", 20 * 256), ("hifigan-22k", 20 * 256 + 128)):
        x = torch.zeros(1, 16000)
        x[0, centre] = 1.0
        mel = MelSpectrogram(MelConfig.from_preset(preset))(x)[0]
        assert mel.sum(0).argmax() == 20


def test_filters_peak_at_their_centres():
    config = MelConfig.from_preset("vocos-24k")
    bins = np.linspace(0, 12000, 513)
    peaks = bins[mel_filterbank(config).argmax(1)]
    assert np.abs(peaks - band_centres(config)).max() <= bins[1]


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (torch.zeros(16000), r"\(B, T\), got \(16000,\)"),
        (torch.zeros(1, 1, 16000), r"got \(1, 1, 16000\)"),
        (np.zeros((1, 16000), np.float32), "got ndarray"),
        (torch.zeros(1, 16000, dtype=torch.int16), "got int16"),
        (torch.zeros(1, 16000, dtype=torch.float64), "got float64"),
        (torch.full((1, 16000), float("nan")), "16000 samples that are NaN"),
        (torch.full((1, 16000), float("-inf")), "NaN or infinite"),
        (torch.full((1, 16000), 1.01), r"reaches 1.01, but waveforms lie in \[-1, 1\]: scale it down"),
        (torch.full((1, 16000), -20000.0), "not divided by 32768"),
        (torch.zeros(1, 512), "at least 513 samples to reflect 512"),
    ],
)
def test_waveform_is_refused(waveform, message):
    with pytest.raises(InputError, match=message) as error:
        MelSpectrogram(MelConfig())(waveform)
    assert "\n" not in str(error.value)


def test_a_hair_beyond_full_scale_is_allowed_and_values_may_go_unchecked():
    MelSpectrogram(MelConfig())(torch.full((1, 2000), 1.00009))
    MelSpectrogram(MelConfig(), check_values=False)(torch.full((1, 2000), 3.0))


class TestCheckMel:
    config = MelConfig()
    mel = MelSpectrogram(MelConfig())(torch.from_numpy(noise(16000)).float()[None])

    def test_accepts_what_the_front_end_makes(self):
        for config in CONFIGS.values():
            check_mel(MelSpectrogram(config)(torch.from_numpy(noise(16000)).float()[None]), config)
        for loud in (torch.ones(1, 4000), torch.sin(torch.arange(4000.0))[None], torch.zeros(1, 4000)):
            check_mel(MelSpectrogram(self.config)(loud), self.config)
        check_mel(self.mel[0], self.config)
        check_mel(torch.zeros(1, 80, 88), self.config)
        check_mel(torch.randn(1, 80, 88, generator=torch.Generator().manual_seed(0)), self.config)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda mel: mel[:, :79], r"80 bands and then frames, got \(1, 79, 63\)"),
            (lambda mel: mel.mT, "transposed"),
            (lambda mel: mel[0, 0], r"got \(63,\)"),
            (lambda mel: mel[..., :0], "no frames"),
            (lambda mel: mel.int(), "floats, got int32"),
            (lambda mel: mel.numpy(), "got ndarray"),
            (lambda mel: mel.index_fill(2, torch.tensor([3]), float("nan")), "80 values that are NaN"),
            (lambda mel: mel * 0.4343, "base-10"),
            (lambda mel: mel * 8.686, "decibels"),
            (lambda mel: (mel + 11.52) / 15, "0 to 1 scale"),
            (lambda mel: mel.exp(), "magnitudes"),
            (lambda mel: mel + 10.4, "not in"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_refuses(self, change, message):
        with pytest.raises(InputError, match=message) as error:
            check_mel(change(self.mel), self.config, "a.npy")
        assert str(error.value).startswith("a.npy ")
        assert "\n" not in str(error.value)

    def test_refuses_natural_logs_where_log10_is_due(self):
        with pytest.raises(InputError, match="looks like natural logarithms"):
            check_mel(self.mel, dataclasses.replace(self.config, log_base="10"))

    def test_warns_where_it_cannot_know(self, caplog):
        with caplog.at_level(logging.WARNING, "waveflow"):
            check_mel(self.mel, self.config)
            assert not caplog.records
            check_mel((self.mel.clamp_min(-11.2) + 1.0) * 0.4343, self.config)
        assert "base-10" in caplog.text
