"""Yardsticks of likelihood against closed forms, naive loops and the figures known of LJ Speech."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter
from scipy.stats import norm, t

from waveflow.audio import MelConfig
from waveflow.data import LSB, WholeClips, find_clips, split_clips
from waveflow.errors import InputError
from waveflow.evaluation import YARDSTICKS, dequantize, nats_per_sample, yardsticks

MEL = MelConfig()
LJSPEECH = Path(__file__).parents[3] / "shared" / "data" / "ljspeech"


def clip(signal, name="clip"):
    grid = np.round(np.asarray(signal) / LSB) * LSB
    return {"waveform": torch.from_numpy(grid).float(), "mel": torch.zeros(80, 1), "name": name}


def gaussian(samples, scale=0.1):
    return scale * np.random.default_rng(3).standard_normal(samples)


def resonance(samples, innovation=0.01):
    """AR(2) with poles of radius 0.98: what is best known of it is the innovation."""
    radius, angle = 0.98, 0.6
    noise = innovation * np.random.default_rng(5).standard_normal(samples)
    return lfilter([1], [1, -2 * radius * math.cos(angle), radius**2], noise)


def entropy(scale):
    return 0.5 * math.log(2 * math.pi * math.e * scale**2)


def seen(item, index=0, seed=0):
    return dequantize(item["waveform"], (seed, index)).double().numpy()


def test_white_noise_has_its_entropy():
    figures = yardsticks([clip(gaussian(200 * 256))], MEL)
    assert list(figures) == list(YARDSTICKS)
    assert figures["white"] == pytest.approx(-entropy(0.1), abs=0.01)
    # The mean of -log(chi2_n / n) / 2 is about 1 / 2n: what a variance of its own earns each of the n samples of a hop.
    gain = figures["white_per_frame"] - figures["white"]
    assert gain == pytest.approx(0.5 / 256, rel=0.25)
    # Nothing is to be predicted; 24 needless coefficients and a gain that wavers cost a little.
    assert -0.1 < figures["prediction_causal"] + entropy(0.1) < 0
    assert 0 < figures["prediction_centred"] + entropy(0.1) < 0.1


def test_prediction_comes_near_the_innovation_of_an_autoregressive_process():
    x = resonance(300 * 256)
    figures = yardsticks([clip(x)], MEL)
    assert figures["white"] == pytest.approx(-entropy(x.std()), abs=0.01)
    assert figures["white"] < -entropy(0.01) - 1
    assert figures["prediction_causal"] == pytest.approx(-entropy(0.01), abs=0.1)
    assert figures["prediction_centred"] == pytest.approx(-entropy(0.01), abs=0.05)
    assert figures["prediction_causal"] < -entropy(0.01)


@pytest.mark.parametrize("hop", [256, 100])
def test_equals_naive_loops(hop):
    config = MelConfig(hop_length=hop)
    item = clip(resonance(9 * hop + 37))
    figures = yardsticks([item], config, seed=2)
    x = seen(item, seed=2)
    starts = range(0, len(x), hop)
    hops = [x[start : start + hop] for start in starts]
    per_frame = [norm.logpdf(h, scale=np.sqrt(np.mean(h**2))).sum() for h in hops]
    assert figures["white"] == pytest.approx(norm.logpdf(x, scale=np.sqrt(np.mean(x**2))).mean(), rel=1e-9)
    assert figures["white_per_frame"] == pytest.approx(sum(per_frame) / len(x), rel=1e-9)

    before, around = (4 * hop, 3 * hop // 2)
    expected = []
    for start in starts:
        error, variance = predict(x, start, hop, start - around)
        expected.extend(norm.logpdf(error, scale=math.sqrt(variance)))
    assert figures["prediction_centred"] == pytest.approx(np.mean(expected), rel=1e-7)

    n, d, expected = 1.0, LSB**2 / 12, []
    for error in np.concatenate([predict(x, start, hop, start - before)[0] for start in starts]):
        expected.append(t.logpdf(error, df=63 / 64 * n, scale=math.sqrt(d / n)))
        n, d = 63 / 64 * n + 1, 63 / 64 * d + error**2
    assert figures["prediction_causal"] == pytest.approx(np.mean(expected), rel=1e-7)


def predict(x, start, hop, first):
    """Residual of one hop, and its variance, by a loop over the samples of one window."""
    window = {n: math.sin(math.pi * (n - first + 0.5) / (4 * hop)) ** 2 for n in range(first, first + 4 * hop)}
    window = {n: w for n, w in window.items() if 0 <= n < len(x)}
    r = np.zeros(25)
    for lag in range(25):
        r[lag] = sum(w * x[n] * window[n + lag] * x[n + lag] for n, w in window.items() if n + lag in window)
    r /= sum(w * w for w in window.values()) or 1
    r[0] += LSB**2 / 12
    a = solve_toeplitz(r[:24], r[1:])
    padded = np.concatenate([np.zeros(24), x])
    stop = min(start + hop, len(x))
    error = np.array([x[n] - sum(a[j] * padded[24 + n - 1 - j] for j in range(24)) for n in range(start, stop)])
    return error, r[0] - a @ r[1:]


@pytest.mark.parametrize("past", [256, 299])
def test_the_causal_prediction_is_a_density_given_the_past(past):
    """The last sample changes the probability of none before it, and its own sums to one."""
    x = gaussian(past)
    before = past * yardsticks([clip(x)], MEL)["prediction_causal"]
    values = np.linspace(-1, 1, 201)
    clips = [clip(np.append(x, value)) for value in values]
    given = [(past + 1) * yardsticks([c], MEL)["prediction_causal"] - before for c in clips]
    assert np.trapezoid(np.exp(given), values) == pytest.approx(1, abs=1e-4)


def test_sees_the_samples_and_the_noise_that_a_model_sees():
    class WhiteByClip:
        mel_config = MEL

        def log_prob(self, waveform, mel):
            scale = waveform.double().square().mean(1, keepdim=True).sqrt()
            return torch.distributions.Normal(0, scale).log_prob(waveform).sum(1)

    clips = [clip(gaussian(256, 3 * LSB)), clip(gaussian(9 * 256, 0.2)), clip(gaussian(2 * 256, 3 * LSB))]
    model = nats_per_sample(WhiteByClip(), clips, seed=4).nats_per_sample
    assert yardsticks(iter(clips), MEL, seed=4)["white"] == pytest.approx(model, abs=1e-9)
    assert yardsticks(iter(clips), MEL, seed=5)["white"] != pytest.approx(model, abs=1e-6)
    assert yardsticks(clips[::-1], MEL, seed=4)["white"] != pytest.approx(model, abs=1e-6)


def test_digital_silence_has_the_density_of_its_noise():
    figures = yardsticks([clip(np.zeros(40 * 256))], MEL)
    uniform = math.log(1 / LSB)  # what a model can reach that knows the noise
    for nats in figures.values():
        assert -entropy(LSB / math.sqrt(12)) - 0.1 < nats < uniform
    assert figures["white"] == pytest.approx(-entropy(LSB / math.sqrt(12)), abs=0.01)


@pytest.mark.parametrize("samples", [1, 7, 24, 255, 256, 257, 700])
def test_clips_shorter_than_a_window_stay_finite(samples):
    assert np.isfinite(list(yardsticks([clip(gaussian(samples))], MEL).values())).all()


@pytest.mark.parametrize(
    "signal",
    {
        "a constant": np.full(4096, 1 - LSB),
        "a tone": np.sin(0.1 * np.arange(4096)),
        "a square wave": np.sign(np.sin(0.05 * np.arange(4096) + 0.01)) * (1 - LSB),
        "a click in silence": np.where(np.arange(4096) == 2000, 0.9, 0),
        "an onset after silence": np.where(np.arange(4096) < 2000, 0, gaussian(4096)),
    }.items(),
    ids=lambda item: item[0],
)
def test_no_signal_is_beyond_them(signal):
    figures = yardsticks([clip(signal[1])], MEL)
    # Not merely finite: a Gaussian with the gain of the silence before would lose a million nats in a click.
    assert all(-2 < nats < math.log(1 / LSB) for nats in figures.values()), figures


def test_hops_shorter_than_the_order_are_no_matter():
    assert np.isfinite(list(yardsticks([clip(gaussian(300))], MelConfig(hop_length=1)).values())).all()


def test_no_clips_are_an_error():
    with pytest.raises(InputError, match="at least one clip"):
        yardsticks([], MEL)


@pytest.mark.skipif(not (LJSPEECH / "metadata.csv").is_file(), reason="needs the LJ Speech subset")
def test_speech_has_the_figures_that_are_known_of_it():
    held_out = split_clips(find_clips(LJSPEECH))[1]
    figures = yardsticks(WholeClips(held_out, MEL, progress=False), MEL)
    known = {"white": 1.27, "white_per_frame": 2.25, "prediction_causal": 4.26, "prediction_centred": 4.75}
    assert figures == pytest.approx(known, abs=0.04)


def test_a_clip_without_samples_is_named():
    with pytest.raises(InputError, match="nothing has no samples"):
        yardsticks([{"waveform": torch.zeros(0), "mel": torch.zeros(80, 0), "name": "nothing"}], MelConfig())
