"""Likelihoods of classical models, to hold a vocoder's against."""

from collections.abc import Iterable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import lfilter
from scipy.special import gammaln

from waveflow.audio import MelConfig
from waveflow.data import LSB, SpeechItem
from waveflow.errors import InputError
from waveflow.evaluation.likelihood import dequantize

ORDER = 24
"""Past samples that linear prediction sees."""

WINDOW = 4
"""Hops in the Hann window that predictors are estimated under: 1024 samples with the usual hop of 256."""

MEMORY = 64
"""Samples, in effect, that the gain of the causal prediction is estimated from."""

YARDSTICKS = {
    "white": "white, a gain a clip",
    "white_per_frame": "white, a gain a frame (an oracle)",
    "prediction_causal": f"prediction of order {ORDER} from the past (a density)",
    "prediction_centred": f"prediction of order {ORDER}, centred window (an oracle)",
}
"""Names of the yardsticks, and what to call them in print."""

_FLOOR = LSB**2 / 12  # the variance of the dequantisation noise, which no predictor can foresee


def yardsticks(clips: Iterable[SpeechItem], mel_config: MelConfig, seed: int = 0) -> dict[str, float]:
    r"""Mean log-likelihood per sample of whole clips under four models that need no training.

    They see what :func:`nats_per_sample` shows to a model, the same samples with the same noise, and are averaged
    alike, so the figures compare. In hops of H = ``mel_config.hop_length`` samples:

    - ``white``: :math:`\mathcal{N}(0, \sigma^2)`, with the mean square of the whole clip as variance;
    - ``white_per_frame``: the same, with the mean square of each hop as the variance of that hop;
    - ``prediction_causal``: the residual of linear prediction, whose coefficients follow from the 4 H samples before
      each hop, under a Student-t distribution whose scale follows from the residuals before each sample;
    - ``prediction_centred``: the residual of linear prediction under a Gaussian, whose coefficients and variance both
      follow from the 4 H samples around the middle of each hop.

    Only the third is a density: no parameter of it depends on a sample not yet seen. The others read their parameters
    off the samples that they score, without paying for them: one number in a clip, which is next to nothing, one in
    every hop, 25 in every hop.

    Linear prediction (Makhoul, 1975: Linear prediction, a tutorial review; autocorrelation method) with p = 24, a Hann
    window w and x = 0 outside the clip:

    .. math::
        r_k = \frac{\sum_n w_n x_n w_{n+k} x_{n+k}}{\sum_{n \in \text{clip}} w_n^2} + \delta_k \frac{\text{LSB}^2}{12},
        \qquad \sum_{j=1}^p a_j r_{|i-j|} = r_i,
        \qquad e_t = x_t - \sum_{j=1}^p a_j x_{t-j}.

    The centred one has the variance :math:`r_0 - \sum_j a_j r_j`. In the causal one that variance is useless: where
    speech sets in, it is that of the silence before. Its gain is followed sample by sample instead, by discounting
    (West & Harrison, 1997: Bayesian Forecasting and Dynamic Models) with a memory of 64 samples:

    .. math::
        e_t \mid e_{<t} \sim \text{Student-t}\left(\nu = \delta n_t,\ \text{scale}^2 = d_t / n_t\right), \qquad
        n_{t+1} = \delta n_t + 1, \quad d_{t+1} = \delta d_t + e_t^2, \quad \delta = 1 - 1/64

    from :math:`n_0 = 1, d_0 = \text{LSB}^2 / 12`. This is not the best that the past allows: predictors renewed every
    32 samples, under a window that falls late, are about 0.4 better on LJ Speech.

    All is float64 and finite, also for digital silence and for clips shorter than a window or a hop.

    Args:
        clips: waveform (T,) each, clean; for instance ``WholeClips``. A last hop may be incomplete.
        mel_config: for the length of a hop.
        seed: of the dequantisation noise, as in :func:`nats_per_sample`.

    Returns:
        Nats per sample, by the names in ``YARDSTICKS``.

    Raises:
        InputError: for no clips.
    """
    total, samples = dict.fromkeys(YARDSTICKS, 0.0), 0
    for index, clip in enumerate(clips):
        nats = clip_yardsticks(clip, index, mel_config.hop_length, seed)
        total = {name: total[name] + nats[name] for name in total}
        samples += len(clip["waveform"])
    if not samples:
        raise InputError("yardsticks need at least one clip, got none")
    return {name: nats / samples for name, nats in total.items()}


def clip_yardsticks(clip: SpeechItem, index: int, hop: int, seed: int = 0) -> dict[str, float]:
    """Nats of one whole clip with the noise of (seed, index); see :func:`yardsticks`."""
    if not len(clip["waveform"]):
        raise InputError(f"{clip['name']} has no samples to hold a model's likelihood against")
    x = dequantize(clip["waveform"], (seed, index)).double().numpy()
    causal, _ = _predict(x, hop, lead=WINDOW * hop)
    centred, variance = _predict(x, hop, lead=(WINDOW - 1) * hop // 2)
    starts = np.arange(0, len(x), hop)
    squares = np.add.reduceat(x**2, starts) / np.diff(starts, append=len(x))
    return {
        "white": _gaussian(x, np.mean(x**2)),
        "white_per_frame": _gaussian(x, _held(squares, hop, len(x))),
        "prediction_causal": _discounted(causal),
        "prediction_centred": _gaussian(centred, _held(variance, hop, len(x))),
    }


def _predict(x: np.ndarray, hop: int, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Residual (T,) and its expected variance in each hop; the windows start ``lead`` samples before the hops."""
    length, frames = WINDOW * hop, -(-len(x) // hop)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length)

    def windowed(signal: np.ndarray) -> np.ndarray:
        return sliding_window_view(np.pad(signal, (lead, length)), length)[::hop][:frames] * window

    size = length + max(length, ORDER)  # room for all lags without wrapping around
    spectra = np.fft.rfft(windowed(x), size)
    r = np.fft.irfft(spectra.real**2 + spectra.imag**2, size)[:, : ORDER + 1]
    weight = (windowed(np.ones_like(x)) ** 2).sum(1)
    r /= np.where(weight > 0, weight, 1)[:, None]
    r[:, 0] += _FLOOR
    lags = np.arange(ORDER)
    a = np.linalg.solve(r[:, abs(lags[:, None] - lags)], r[:, 1:, None])[:, :, 0]
    past = sliding_window_view(np.pad(x, (ORDER, frames * hop - len(x))), ORDER)[:-1, ::-1]
    forecast = past.reshape(frames, hop, ORDER) @ a[:, :, None]
    return x - forecast.ravel()[: len(x)], np.maximum(r[:, 0] - (a * r[:, 1:]).sum(1), _FLOOR)


def _held(values: np.ndarray, hop: int, length: int) -> np.ndarray:
    return np.repeat(values, hop)[:length]


def _gaussian(x: np.ndarray, variance: np.ndarray | float) -> float:
    variance = np.maximum(variance, _FLOOR)
    return -0.5 * float(np.sum(np.log(2 * np.pi * variance) + x**2 / variance))


def _discounted(x: np.ndarray) -> float:
    """Nats of x under Student-t distributions, each with the scale of the samples before it."""
    discount = 1 - 1 / MEMORY

    def before(innovations: np.ndarray, start: float) -> np.ndarray:
        after, _ = lfilter([1.0], [1.0, -discount], innovations, zi=[discount * start])
        return np.concatenate([[start], after[:-1]])

    n, d = before(np.ones_like(x), 1.0), before(x**2, _FLOOR)
    freedom, spread = discount * n, discount * d  # freedom times the squared scale
    log_norm = gammaln((freedom + 1) / 2) - gammaln(freedom / 2) - 0.5 * np.log(np.pi * spread)
    return float(np.sum(log_norm - (freedom + 1) / 2 * np.log1p(x**2 / spread)))
