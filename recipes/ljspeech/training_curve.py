"""The curves of a training run of a vocoder, as a table and as a picture."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from waveflow.errors import InputError

Curves = Mapping[str, Mapping[int, float]]
"""Figure at each step, by its name in ``logs/metrics.csv``."""

_POINTS = 400  # of a curve of training batches; more is noise, and megabytes in a repository
_SHOWN = {"nats_per_sample": "nats per sample", "stoi": "STOI of copies"}


def read_curves(metrics: Path, last: int) -> Curves:
    """Likelihood of training batches, averaged over stretches of steps, and every figure of validations.

    Args:
        metrics: ``logs/metrics.csv`` of a run.
        last: step after which it is not read: a run that was killed logged more than it saved.

    Raises:
        InputError: if the file is missing, no log of a run, or has no validation.
    """
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    try:
        with open(metrics, newline="") as file:
            for row in csv.DictReader(file):
                if int(row["step"]) <= last:
                    curves[row["name"]][int(row["step"])] = float(row["value"])
    except FileNotFoundError:
        raise InputError(f"{metrics}: there is no log of a training run") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{metrics}: expected lines of step,name,value ({error})") from None
    kept = {name: curve for name, curve in sorted(curves.items()) if name.startswith("validate/")}
    if not kept:
        raise InputError(f"{metrics}: holds no validation")
    batches = curves.get("train/nats_per_sample", {})
    return {"train/nats_per_sample": _thinned(batches), **kept}


def _thinned(curve: Mapping[int, float]) -> dict[int, float]:
    steps = sorted(curve)
    width = -(-len(steps) // _POINTS)
    runs = (steps[i : i + width] for i in range(0, len(steps), width or 1))
    return {run[-1]: sum(curve[step] for step in run) / len(run) for run in runs}


def in_csv(curves: Curves) -> bytes:
    """A line for each step that has a figure, a column for each curve."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *curves])
    for step in sorted({step for curve in curves.values() for step in curve}):
        writer.writerow([step, *(f"{curve[step]:.5g}" if step in curve else "" for curve in curves.values())])
    return text.getvalue().encode()


def draw(curves: Curves, samples_a_step: int) -> bytes:
    """A PNG: likelihood and STOI against steps, and against samples trained on."""
    names = [name for name in _SHOWN if f"validate/{name}" in curves]
    figure = Figure(figsize=(5.5 * len(names), 3.6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        held_out = curves[f"validate/{name}"]
        if batches := curves.get(f"train/{name}"):
            axis.plot(batches.keys(), batches.values(), color="tab:blue", linewidth=0.7, label="training batches")
        axis.plot(held_out.keys(), held_out.values(), ".-", color="tab:orange", label="held-out clips, averaged model")
        after = [value for step, value in [*(batches or {}).items(), *held_out.items()] if step > 0]
        if after and name == "nats_per_sample":  # the beginning would flatten all that follows
            low, high = sorted(after)[len(after) // 20], max(after)
            axis.set_ylim(low - 0.2 * (high - low) - 0.01, high + 0.1 * (high - low) + 0.01)
        axis.set(xlabel="steps", title=_SHOWN[name])
        axis.spines["right"].set_visible(False)
        axis.grid(alpha=0.3)
        seen = axis.secondary_xaxis(
            "top", functions=(lambda x: x * samples_a_step / 1e6, lambda x: x * 1e6 / samples_a_step)
        )
        seen.set_xlabel("million samples trained on")
        axis.legend(loc="lower right", frameon=False, fontsize="small")
    png = io.BytesIO()
    canvas.print_png(png, metadata={"Software": None})
    return png.getvalue()
