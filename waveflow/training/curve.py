"""The training curve of a run of images, as a table and as a picture."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from waveflow.atomic import write_whole

Curve = dict[int, float]
"""Figure at each step."""


def read_curve(metrics: Path, name: str) -> Curve:
    """A figure of ``logs/metrics.csv`` by its name, such as ``validate/bits_per_dim``."""
    with open(metrics, newline="") as file:
        return {int(row["step"]): float(row["value"]) for row in csv.DictReader(file) if row["name"] == name}


def curve_table(train: Curve, validation: Curve, nats: Curve, minutes: Mapping[int, float], unit: str) -> bytes:
    """A line of CSV for each validation: step, minutes, bits/dim of validation images and of training batches.

    Args:
        train: bits per dimension of training batches; a line has their mean since the line before.
        validation: those of validation images.
        nats: nats an image of validation images, in a column of its own; none where empty.
        minutes: at the steps of ``validation``.
        unit: of ``minutes``.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", unit, "validation", "training", *(["validation, nats"] if nats else [])])
    before = -1
    for step in sorted(validation):
        batches = [bits for s, bits in train.items() if before < s <= step]
        cells = [minutes.get(step), validation[step], sum(batches) / len(batches) if batches else None]
        cells += [nats.get(step)] if nats else []
        writer.writerow([step, *("" if cell is None else f"{cell:.5g}" for cell in cells)])
        before = step
    return text.getvalue().encode()


def draw_curve(path: Path, train: Curve, validation: Curve, minutes: Mapping[int, float], unit: str) -> None:
    """Write a PNG of bits per dimension, against steps and against time.

    Args:
        path: where to.
        train: bits per dimension of training batches.
        validation: those of validation images; the range follows from them, the first left out, which may be far off.
        minutes: at the steps of ``validation``; those that are missing are left out of the right panel.
        unit: of ``minutes``.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    # A second to load, which no other use of the package should wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.plot(train.keys(), train.values(), color="tab:blue", linewidth=0.6, alpha=0.6, label="training batches")
    left.plot(
        validation.keys(), validation.values(), ".-", color="tab:orange", label="validation images, averaged model"
    )
    timed = [(minutes[step], bits) for step, bits in validation.items() if step in minutes]
    right.plot(*zip(*timed, strict=True) if timed else ([], []), ".-", color="tab:orange")
    left.set_xlabel("step")
    right.set_xlabel(f"{unit} of training")
    left.set_ylabel("bits/dim")
    after = [bits for step, bits in validation.items() if step > 0 and math.isfinite(bits)]
    if after:  # the beginning would flatten all that follows
        high = max(after)
        low = min([*after, *(bits for bits in train.values() if math.isfinite(bits))])
        margin = 0.1 * (high - low) + 0.01
        left.set_ylim(low - margin, high + 3 * margin)
    left.legend(fontsize="small")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    write_whole(path, buffer.getvalue())
