"""Training curves, as tables and as pictures."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from waveflow.atomic import write_whole

Curve = dict[int, float]
"""Figure at each step."""


class Line(NamedTuple):
    """A run in a picture of several.

    Attributes:
        name: what it is called.
        curve: its figure at each step.
        places: where on the axis each step is; steps that have none are left out.
    """

    name: str
    curve: Curve
    places: Mapping[int, float]

    def points(self) -> list[tuple[float, int, float]]:
        """Place, step and figure, in the order of steps."""
        return [(self.places[step], step, self.curve[step]) for step in sorted(self.curve) if step in self.places]


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
    after = [bits for step, bits in validation.items() if step > 0]
    _limit(left, after, [*after, *train.values()])
    left.legend(fontsize="small")
    _write(path, figure, (left, right))


def lines_table(lines: Sequence[Line], axis: str, figure: str) -> bytes:
    """A line of CSV for each validation of each run: its name, step, place on the axis, figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "step", axis, figure])
    for line in lines:
        writer.writerows([line.name, step, f"{x:.5g}", f"{y:.5g}"] for x, step, y in line.points())
    return text.getvalue().encode()


def draw_lines(path: Path, lines: Sequence[Line], axis: str, figure: str, levels: Mapping[str, float]) -> None:
    """Write a PNG of several runs, with dashed lines at ``levels``; the range leaves out the steep beginnings.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    from matplotlib.figure import Figure

    picture = Figure(figsize=(7, 4), layout="constrained")
    panel = picture.subplots()
    for line in lines:
        points = line.points()
        panel.plot([x for x, _, _ in points], [y for _, _, y in points], ".-", linewidth=1, label=line.name)
    for name, value in levels.items():
        panel.axhline(value, color="tab:gray", linestyle="--", linewidth=1)
        panel.annotate(name, (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize="small")
    begin = 0.05 * max((x for line in lines for x, _, _ in line.points()), default=0.0)
    after = [y for line in lines for x, step, y in line.points() if step > 0 and x > begin] + list(levels.values())
    _limit(panel, after, after)
    panel.set_xlabel(axis)
    panel.set_ylabel(f"{figure}, validation")
    panel.legend(fontsize="small")
    _write(path, picture, (panel,))


def _limit(axis: Any, upper: Iterable[float], lower: Iterable[float]) -> None:
    # The beginning, which the caller leaves out of ``upper``, would flatten all that follows.
    upper, lower = ([y for y in values if math.isfinite(y)] for values in (upper, lower))
    if upper:
        high, low = max(upper), min(lower)
        margin = 0.1 * (high - low) + 0.01
        axis.set_ylim(low - margin, high + 3 * margin)


def _write(path: Path, figure: Any, axes: Sequence[Any]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    write_whole(path, buffer.getvalue())
