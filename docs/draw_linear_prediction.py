"""Draw the pictures of docs/linear-prediction.md: the envelope that a mel tells of, and what whitening by it leaves.

python docs/draw_linear_prediction.py                                            # a clip of samples/speech
python docs/draw_linear_prediction.py --data path/to/LJSpeech-1.1 --clip LJ002-0175 --out docs/figures
"""

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.linalg import solve_toeplitz
from scipy.signal import freqz, welch

from waveflow.atomic import write_whole
from waveflow.audio import MelConfig, MelEnvelope, autocorrelation
from waveflow.bijectors import LinearPrediction
from waveflow.cli import parse_arguments, run_command
from waveflow.data import SpeechItem, WholeClips, find_clips, split_clips
from waveflow.errors import InputError
from waveflow.evaluation import dequantize

SAMPLES = Path(__file__).parents[1] / "samples" / "speech"
BEFORE, AFTER, BLACK, GREY = "#0072B2", "#D55E00", "#000000", "#B0B0B0"  # Okabe & Ito: also for the colour-blind


@dataclass(frozen=True)
class Arguments:
    """Draw envelope, residual, histogram and spectrum of one clip, with nothing trained.

    Args:
        data: LJ Speech folder, or any folder of audio files (default: the clips in samples/speech).
        clip: Name of the clip (default: the first that the recipe holds out).
        order: Order of the prediction.
        out: Folder for the pictures.
    """

    data: str | None = None
    clip: str | None = None
    order: int = 128
    out: str = "runs/linear-prediction"


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    config = MelConfig()
    if not 1 <= args.order <= config.n_fft // 2:
        raise InputError(f"--order expects 1 to {config.n_fft // 2}, got {args.order}")
    clip = read_clip(args.data or SAMPLES, args.clip, config)
    waveform = dequantize(clip["waveform"].double(), (0,))
    with torch.no_grad():
        whiten = LinearPrediction(config, args.order)
        residual = whiten(waveform[None, None], clip["mel"][None])[0][0, 0]
    x, z = waveform.numpy(), residual.numpy()

    figures = {
        "envelope": draw_envelope(clip, config),
        "residual": draw_residual(x, z, clip, config),
        "whiteness": draw_whiteness(x, z, config.sample_rate),
    }
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        png = io.BytesIO()
        FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
        write_whole(out / f"linear-prediction-{name}.png", png.getvalue())
    print(f"{clip['name']}: {len(x) / config.sample_rate:.1f} s, residual variance {z.var():.2f}; pictures in {out}")


def read_clip(data: str | Path, name: str | None, config: MelConfig) -> SpeechItem:
    clips = find_clips(data)
    chosen = [clip for clip in clips if clip.name == name] if name else split_clips(clips)[1][:1]
    if not chosen:
        raise InputError(f"--clip expects the name of a clip in {data}, such as {clips[0].name}, got {name}")
    return WholeClips(chosen, config, progress=False)[0]


def vowel_and_fricative(mel: np.ndarray) -> tuple[int, int]:
    """The loudest frame, and the one whose highest fifth of bands is loudest: (n_mels, frames) to two indices."""
    return int(mel.mean(0).argmax()), int(mel[-len(mel) // 5 :].mean(0).argmax())


def draw_envelope(clip: SpeechItem, config: MelConfig) -> Figure:
    figure, axes = canvas(3.9, 1, 2, sharey=True)
    waveform, mel = clip["waveform"].double().numpy(), clip["mel"]
    log_power = MelEnvelope(config)(mel[None])
    kilohertz = np.linspace(0, config.sample_rate / 2000, config.n_fft // 2 + 1)
    window = np.hanning(config.win_length + 1)[:-1]
    for axis, frame, kind in zip(axes, vowel_and_fricative(mel.numpy()), ("vowel", "fricative"), strict=True):
        begin = frame * config.hop_length - config.n_fft // 2
        part = np.pad(waveform, config.n_fft)[begin + config.n_fft :][: config.n_fft]
        real = np.abs(np.fft.rfft(part * window)) ** 2 / np.sum(window**2)
        axis.plot(kilohertz, decibels(real), color=GREY, lw=0.8, label="short-time spectrum")
        axis.plot(
            kilohertz, decibels(log_power[0, :, frame].exp()), color=BEFORE, lw=1.8, label="envelope from the mel"
        )
        fit = decibels(all_pole(log_power[..., frame, None], 32))
        axis.plot(kilohertz, fit, color=AFTER, ls=(0, (4, 2)), lw=1.4, label="linear prediction of order 32")
        axis.axvline(config.f_max / 1000, color=BLACK, lw=0.8, ls=":")
        axis.set(xlim=(0, kilohertz[-1]), xlabel="frequency, kHz")
        axis.set_title(f"a {kind}, at {frame * config.hop_length / config.sample_rate:.2f} s", loc="left")
    low, high = axes[0].get_ylim()
    axes[0].set(ylabel="power, dB", ylim=(max(low, -125), high + 5))
    axes[0].legend(loc="upper right", facecolor="white", edgecolor="none", framealpha=0.9)
    end = (config.f_max / 1000, 0.03)
    axes[1].annotate("the mel ends", end, xycoords=("data", "axes fraction"), xytext=(4, 0), textcoords="offset points")
    return figure


def all_pole(log_power: torch.Tensor, order: int) -> np.ndarray:
    """Power spectrum of the linear prediction of that order: (1, bins, 1) to (bins,)."""
    lags = autocorrelation(log_power, order + 1)[0, :, 0].numpy()
    predictor = solve_toeplitz(lags[:-1], lags[1:])
    _, response = freqz([1.0], np.append(1, -predictor), log_power.shape[1], include_nyquist=True)
    return (lags[0] - predictor @ lags[1:]) * np.abs(response) ** 2


def draw_residual(x: np.ndarray, z: np.ndarray, clip: SpeechItem, config: MelConfig) -> Figure:
    figure, (above, below) = canvas(4.2, 2, 1, sharex=True)
    rate, middle = config.sample_rate, vowel_and_fricative(clip["mel"].numpy())[1] * config.hop_length
    first = max(0, min(middle - rate // 2, len(x) - rate))
    shown = slice(first, first + rate)
    time = np.arange(first, first + rate)[: len(x[shown])] / rate
    above.plot(time, x[shown], color=BEFORE, lw=0.5)
    above.set(ylabel="full scale = 1")
    above.set_title("before: the waveform", loc="left")
    below.axhspan(-2, 2, color=GREY, alpha=0.3, lw=0)
    below.plot(time, z[shown], color=AFTER, lw=0.5)
    below.set(ylabel="standard deviations", xlabel="time, s", xlim=(time[0], time[-1]))
    below.set_title("after: the residual, and twice its standard deviation", loc="left")
    return figure


def draw_whiteness(x: np.ndarray, z: np.ndarray, rate: int) -> Figure:
    figure, (left, right) = canvas(3.9, 1, 2)
    edges = np.linspace(-8, 8, 129)
    for signal, colour, name in ((x / x.std(), BEFORE, "waveform"), (z, AFTER, "residual")):
        density = np.histogram(signal, edges)[0] / (len(signal) * np.diff(edges))
        left.stairs(np.where(density > 0, density, np.nan), edges, color=colour, lw=1.4, label=name, baseline=None)
        hertz, power = welch(signal, rate, nperseg=1024)
        right.plot(hertz / 1000, decibels(power * rate / 2), color=colour, lw=1.4, label=name)
    middle = np.linspace(-5, 5, 201)
    left.plot(middle, np.exp(-(middle**2) / 2) / np.sqrt(2 * np.pi), BLACK, ls="--", lw=1, label="unit Gaussian")
    left.set(yscale="log", ylim=(2e-5, 10), xlim=(-8, 8), xlabel="standard deviations", ylabel="probability density")
    left.set_title("how samples are distributed", loc="left")
    left.legend(loc="upper right", facecolor="white", edgecolor="none", framealpha=0.9)
    right.axhline(0, color=BLACK, ls="--", lw=1, label="white, variance 1")
    right.set(xlim=(0, rate / 2000), ylim=(-45, 25), xlabel="frequency, kHz", ylabel="power, dB")
    right.set_title("long-term spectrum", loc="left")
    right.legend(loc="lower left", facecolor="white", edgecolor="none", framealpha=0.9)
    return figure


def canvas(height: float, rows: int, columns: int, **shared: bool) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(9, height), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, **shared)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def decibels(power: np.ndarray | torch.Tensor) -> np.ndarray:
    return 10 * np.log10(np.maximum(np.asarray(power), 1e-13))


if __name__ == "__main__":
    sys.exit(run_command(main, "draw_linear_prediction.py"))
