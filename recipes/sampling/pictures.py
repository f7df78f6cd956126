"""Pictures of what the samplers drew."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from comparison import Row
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from waveflow.atomic import write_whole


def draw_planes(path: Path, rows: list[Row], log_target: Callable[[Tensor], Tensor], reach: float = 4.0) -> None:
    """The draws of each sampler in the plane, over the contours of the target."""

    def panel(axis: Axes, row: Row) -> None:
        line = torch.linspace(-reach, reach, 200)
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
        density = log_target(grid.flatten(0, 1)).exp().reshape(200, 200).numpy()
        axis.contour(line.numpy(), line.numpy(), density, levels=6, colors="tab:orange", linewidths=0.8, zorder=3)
        points = row.samples.flatten(0, 1)
        points = points[torch.linspace(0, len(points) - 1, min(4000, len(points))).long()].numpy()
        axis.plot(points[:, 0], points[:, 1], ".", markersize=1.2, color="tab:blue", rasterized=True)
        axis.set_xlim(-reach, reach)
        axis.set_ylim(-reach, reach)
        axis.set_aspect("equal")

    _write(path, rows, panel, columns=min(4, len(rows)), size=(3.0, 3.1))


def draw_traces(path: Path, rows: list[Row], coordinate: int, name: str, steps: int = 500) -> None:
    """One coordinate of the first chain of each sampler, step by step."""
    rows = [row for row in rows if row.acceptance is not None]
    low, high = (
        np.quantile(torch.cat([r.samples[..., coordinate].flatten() for r in rows]), q) for q in (0.001, 0.999)
    )

    def panel(axis: Axes, row: Row) -> None:
        axis.plot(row.samples[0, :steps, coordinate].numpy(), linewidth=0.7)
        axis.set_ylim(low, high)
        axis.set_ylabel(name)

    _write(path, rows, panel, columns=1, size=(9.0, 1.5))


def _write(path: Path, rows: list[Row], panel: Callable, columns: int, size: tuple[float, float]) -> None:
    height = -(-len(rows) // columns)
    figure = Figure(figsize=(columns * size[0], height * size[1]), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(height, columns, squeeze=False).flatten()
    for axis, row in zip(axes, rows, strict=False):
        panel(axis, row)
        axis.set_title(row.method, fontsize="medium", loc="left")
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    write_whole(path, buffer.getvalue())
