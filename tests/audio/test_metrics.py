"""Metrics against closed forms and naive computations."""

import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from waveflow.audio.metrics import (
    HAS_PESQ,
    STFT_RESOLUTIONS,
    PitchErrors,
    align,
    cepstral_distance,
    compare,
    compare_pitch,
    compare_tracks,
    comparison,
    listening,
    log_mel_l1,
    mel_cepstral_distortion,
    pesq,
    pitch_track,
    stft_distance,
    stoi,
)
from waveflow.errors import InputError

RATE = 22050
SPEECH = Path(__file__).parents[2] / "samples/speech"


def noise(samples: int = RATE, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(samples)


def pulses(frequency: float, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """A band-limited pulse train: every harmonic below 4 kHz."""
    t = np.arange(int(seconds * rate)) / rate
    harmonics = np.arange(1, int(4000 / frequency))
    return 0.02 * np.cos(2 * np.pi * frequency * harmonics[:, None] * t).sum(0)


def babble(seconds: float = 2.0) -> np.ndarray:
    """Voiced and unvoiced stretches at a syllable's pace; enough for what looks for speech."""
    t = np.arange(int(seconds * RATE)) / RATE
    return (pulses(140, seconds) + noise(len(t), 1, 0.01)) * np.maximum(0, np.sin(2 * np.pi * 3 * t))


def naive_stft_distance(real, generated) -> float:
    total = 0
    for n_fft, hop, win in STFT_RESOLUTIONS:
        window = np.zeros(n_fft)
        left = (n_fft - win) // 2
        window[left : left + win] = scipy.signal.get_window("hann", win)
        magnitudes = []
        for x in (real, generated):
            padded = np.pad(x, n_fft // 2, mode="reflect")
            starts = range(0, len(padded) - n_fft + 1, hop)
            frames = [np.abs(np.fft.rfft(window * padded[start : start + n_fft])) for start in starts]
            magnitudes.append(np.maximum(np.array(frames), 1e-4))
        a, b = magnitudes
        total += np.sqrt(((a - b) ** 2).sum()) / np.sqrt((a**2).sum()) + np.abs(np.log(a) - np.log(b)).mean()
    return total / 3


def test_stft_distance_equals_naive_computation():
    a, b = noise(5000), noise(5000, 1)
    assert stft_distance(a, b) == pytest.approx(naive_stft_distance(a, b), rel=1e-9)
    assert stft_distance(b, a) == pytest.approx(naive_stft_distance(b, a), rel=1e-9)


@pytest.mark.parametrize("gain", [0.5, 0.9, 1.5])
def test_gain_has_a_closed_form(gain):
    x = noise()
    assert stft_distance(x, gain * x) == pytest.approx(abs(1 - gain) + abs(math.log(gain)), rel=1e-3)
    assert log_mel_l1(x, gain * x, RATE) == pytest.approx(abs(math.log(gain)), rel=1e-3)
    assert mel_cepstral_distortion(x, gain * x, RATE) < 1e-6  # level is c_0, left out


@pytest.mark.parametrize("k", [1, 2, 13])
def test_cepstral_offset_has_a_closed_form(k):
    mel = np.random.default_rng(0).standard_normal((80, 7))
    ripple = 0.3 * np.cos(np.pi * k * (np.arange(80) + 0.5) / 80)[:, None]
    assert cepstral_distance(mel, mel + ripple) == pytest.approx(0.3 * 10 / math.log(10) * math.sqrt(2), rel=1e-12)
    assert cepstral_distance(mel, mel + ripple, coefficients=k - 1) == pytest.approx(0, abs=1e-12)
    assert cepstral_distance(mel, mel + 5.0) == pytest.approx(0, abs=1e-12)


def test_all_coefficients_give_the_rms_difference_in_decibels():
    a, b = np.random.default_rng(0).standard_normal((2, 80, 9))
    difference = 20 * np.log10(np.exp(a - b))
    expected = np.sqrt(np.mean((difference - difference.mean(0)) ** 2, axis=0)).mean()
    assert cepstral_distance(a, b, coefficients=79) == pytest.approx(expected, rel=1e-12)


def test_mcd_of_a_filter_is_that_of_its_response():
    x = noise(4 * RATE)
    filtered = scipy.signal.lfilter([1, 0.5], [1], x)
    # the response at the band centres, from the formula of the Slaney scale: linear to 1 kHz, then 27 steps per 6.4
    mels = np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), 82)[1:-1]
    hz = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    response = np.log(np.abs(1 + 0.5 * np.exp(-2j * np.pi * hz / RATE)))
    expected = cepstral_distance(response[:, None], np.zeros((80, 1)))
    assert mel_cepstral_distortion(x, filtered, RATE) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("rate", [16000, 22050, 24000])
@pytest.mark.parametrize("frequency", [80.0, 123.4, 210.0, 500.0])
def test_pitch_of_pulses(rate, frequency):
    track = pitch_track(pulses(frequency, 0.5, rate), rate)
    assert len(track) == 51
    middle = track[5:-5]
    assert np.isfinite(middle).all()
    assert np.abs(1200 * np.log2(middle / frequency)).max() < 15  # cents


def test_pitch_error_and_voicing():
    found = compare_pitch(pulses(200), pulses(220), RATE)
    assert found.rmse == pytest.approx(20, abs=2) and found.vuv_f1 > 0.95
    assert found.fine == found.rmse and found.gross == 0 and found.frame_error < 0.1
    half = np.concatenate([pulses(200, 0.5), noise(RATE // 2, level=0.05)])
    found = compare_pitch(pulses(200, 1.0)[: len(half)], half, RATE)
    assert found.rmse < 3
    assert found.vuv_f1 == pytest.approx(2 / 3, abs=0.06)  # half of what should be voiced is: 2 * 0.5 / (1 + 0.5)
    assert found.frame_error == pytest.approx(0.5, abs=0.06)
    assert compare_pitch(noise(8000), noise(8000, 1), RATE).rmse is None
    assert compare_pitch(np.zeros(8000), np.zeros(8000), RATE) == PitchErrors(None, None, None, 0.0, None)


def test_an_octave_error_is_gross_and_leaves_the_fine_error_alone():
    reference = pulses(150, 2.0)
    octave = np.concatenate([pulses(153, 1.5), pulses(306, 0.5)])
    found = compare_pitch(reference, octave, RATE)
    assert found.fine == pytest.approx(3, abs=0.5)
    assert found.gross == pytest.approx(0.25, abs=0.05)
    assert found.frame_error == pytest.approx(0.25, abs=0.08)
    assert found.rmse == pytest.approx(math.sqrt(0.25 * 156**2 + 0.75 * 3**2), rel=0.1)


def test_errors_of_tracks_counted_one_by_one():
    generator = np.random.default_rng(0)
    reference = np.where(generator.random(500) < 0.3, np.nan, generator.uniform(80, 300, 500))
    track = np.where(generator.random(500) < 0.2, np.nan, reference * generator.choice([0.5, 0.85, 1.1, 1.3, 2], 500))
    track = np.where(np.isnan(track) & (generator.random(500) < 0.3), 100.0, track)
    squares, near, far, wrong, hits, alarms = [], [], 0, 0, 0, 0
    for ours, theirs in zip(track, reference, strict=True):
        if math.isnan(ours) or math.isnan(theirs):
            wrong += math.isnan(ours) != math.isnan(theirs)
            alarms += math.isnan(ours) != math.isnan(theirs)
            continue
        hits += 1
        squares.append((ours - theirs) ** 2)
        if 0.8 * theirs < ours < 1.2 * theirs:
            near.append(squares[-1])
        else:
            far, wrong = far + 1, wrong + 1
    found = compare_tracks(track, reference)
    assert found.rmse == pytest.approx(math.sqrt(sum(squares) / len(squares)))
    assert found.fine == pytest.approx(math.sqrt(sum(near) / len(near)))
    assert (found.gross, found.frame_error) == (far / hits, wrong / 500)
    assert found.vuv_f1 == pytest.approx(2 * hits / (2 * hits + alarms))


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 3), (2, 3))])
def test_tracks_that_do_not_match_are_refused(shapes):
    ours, theirs = (np.full(shape, 100.0) for shape in shapes)
    with pytest.raises(InputError, match="two tracks of as many frames, got " + re.escape(f"{ours.shape}")):
        compare_tracks(ours, theirs)


def test_equal_signals_are_at_the_best_value():
    result = compare(babble(), torch.from_numpy(babble()), RATE)
    assert list(result) == ["stoi", "pesq", "mstft", "mcd", "f0_rmse", "f0_frame_error", "vuv_f1", "log_mel_l1"]
    assert result["stoi"] == pytest.approx(1, abs=1e-6)
    assert (result["mstft"], result["mcd"], result["f0_rmse"], result["log_mel_l1"]) == (0, 0, 0, 0)
    assert result["f0_frame_error"] == 0 and result["vuv_f1"] == 1
    assert all(value is None or type(value) is float for value in result.values())


@pytest.mark.skipif(not HAS_PESQ, reason="needs the package pesq")
def test_pesq_of_equal_signals_is_4_64():
    assert pesq(babble(), babble(), RATE) == pytest.approx(4.644, abs=1e-3)


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs the sample clips")
def test_everything_gets_worse_with_noise():
    real, rate = soundfile.read(min(SPEECH.rglob("*.flac")))
    results = [compare(real, real + noise(len(real), level=level), rate) for level in (0.0003, 0.003, 0.03)]
    for key in ("mstft", "mcd", "log_mel_l1"):
        assert results[0][key] < results[1][key] < results[2][key], key
    for key in ("stoi", "pesq") if HAS_PESQ else ("stoi",):
        assert results[0][key] > results[1][key] > results[2][key], key
    assert results[0]["vuv_f1"] > results[2]["vuv_f1"]


def test_less_than_a_hop_is_cropped_and_more_refused():
    x = noise(4000)
    assert stft_distance(x, np.append(x, np.ones(255))) == 0
    assert stft_distance(np.append(x, np.ones(255)), x) == 0
    with pytest.raises(InputError, match="got 4000 real and 4256 generated"):
        compare(x, np.append(x, np.ones(256)), RATE)


@pytest.mark.parametrize(
    ("generated", "message"),
    [
        (np.zeros((1, 4000)), r"generated to be floats \(T,\), got float64 \(1, 4000\)"),
        (np.zeros(4000, np.int16), "got int16"),
        (torch.zeros(0), r"\(0,\)"),
        (torch.full((4000,), float("nan")), "4000 others in generated"),
    ],
)
def test_what_is_no_waveform_is_refused(generated, message):
    with pytest.raises(InputError, match=message):
        align(noise(4000), generated)


def test_too_short_for_some_is_none_and_for_all_is_refused(caplog):
    with caplog.at_level(logging.INFO, "waveflow"):
        result = compare(noise(3000), noise(3000), RATE)
    assert result["stoi"] is None and result["pesq"] is None and result["mstft"] == 0
    assert "stoi left out: STOI needs at least 0.4 s" in caplog.text
    with pytest.raises(InputError, match="more than 1024 samples, got 1024"):
        compare(noise(1024), noise(1024), RATE)


def test_silence():
    silence = np.zeros(RATE)
    result = compare(silence, silence, RATE)
    assert result["stoi"] is result["pesq"] is result["f0_rmse"] is result["vuv_f1"] is None
    assert compare(babble(), 0 * babble(), RATE)["mstft"] > 1
    with pytest.raises(InputError, match="real waveform is silent"):
        stoi(silence, noise(), RATE)


def test_without_pesq_its_value_is_none_and_the_log_says_once_how_to_get_it(monkeypatch, caplog):
    monkeypatch.setattr(listening, "_pesq", None)
    monkeypatch.setattr(comparison, "HAS_PESQ", False)
    comparison._without_pesq.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'waveflow\[metrics\]'"):
        pesq(noise(), noise(), RATE)
    with caplog.at_level(logging.WARNING, "waveflow"):
        for _ in range(2):
            assert compare(noise(4000), noise(4000), RATE)["pesq"] is None
    assert caplog.text.count("pip install 'waveflow[metrics]'") == 1
    comparison._without_pesq.cache_clear()
