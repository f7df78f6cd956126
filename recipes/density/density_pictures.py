"""Pictures of a flow: its density, its samples, and how it bends a grid."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.models import VectorFlow

_DATA, _SAMPLES = "tab:blue", "tab:orange"


def draw_density(path: Path, model: VectorFlow, data: Tensor, samples: Tensor) -> None:
    """Data (N, 2), the model's density and its samples (N, 2), side by side on one scale."""
    low, high = _range(data)
    figure, axes = _figure(1, 3, size=3.4)
    density = _density(model, low, high)
    _show_points(axes[0], data, low, high, "data held out", _DATA)
    _show_density(axes[1], density, low, high, "density of the flow", _brightest(density))
    _show_points(axes[2], samples, low, high, "samples of the flow", _SAMPLES)
    _write(path, figure)


def draw_densities(path: Path, flows: Mapping[str, tuple[VectorFlow, Tensor]], data: Tensor) -> None:
    """The density of each flow and its draws (N, 2) below, side by side on the scales of the data (N, 2) and the first.

    Args:
        path: of the PNG file.
        flows: by name, each with its draws.
        data: tells what part of the plane to show.
    """
    low, high = _range(data)
    figure, axes = _figure(2, len(flows), size=3.4)
    densities = {name: _density(model, low, high) for name, (model, _) in flows.items()}
    brightest = _brightest(next(iter(densities.values())))
    for column, (name, (_, draws)) in enumerate(flows.items()):
        _show_density(axes[column], densities[name], low, high, f"density of the {name}", brightest)
        _show_points(axes[len(flows) + column], draws, low, high, f"draws of the {name}", _SAMPLES)
    _write(path, figure)


def draw_bent_grid(path: Path, model: VectorFlow, panels: int = 8) -> None:
    """A square grid of the latent plane, and draws of the base, on their way through the layers to the data."""
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    along, lines = torch.linspace(-3, 3, 241), torch.linspace(-3, 3, 13)
    upright = torch.stack(torch.meshgrid(lines, along, indexing="ij"), -1)
    grid = torch.cat([upright, upright.flip(-1)]).to(device)  # (lines, points, 2)
    points = torch.randn(1500, 2, generator=generator).to(device)

    stages = [("latent", grid, points)]
    layers = list(model.bijector)
    for number, layer in enumerate(reversed(layers), 1):
        grid = layer.inverse(grid.flatten(0, 1))[0].reshape(grid.shape)
        points = layer.inverse(points)[0]
        stages.append((f"after {number} of {len(layers)} maps", grid, points))
    chosen = sorted({round(i) for i in np.linspace(0, len(stages) - 1, min(panels, len(stages)))})

    columns = min(4, len(chosen))
    figure, axes = _figure(-(-len(chosen) // columns), columns, size=2.8)
    for axis, (title, grid, points) in zip(axes, (stages[i] for i in chosen), strict=False):
        for curve in grid.cpu().numpy():
            axis.plot(*curve.T, color="0.6", linewidth=0.6)
        axis.plot(*points.cpu().numpy().T, ".", markersize=1.2, color=_SAMPLES, rasterized=True, zorder=3)
        low, high = _range(points)
        axis.set_xlim(low[0], high[0])
        axis.set_ylim(low[1], high[1])
        axis.set_title(title, fontsize="medium", loc="left")
    for axis in axes[len(chosen) :]:
        axis.set_axis_off()
    _write(path, figure)


def draw_pairs(
    path: Path,
    data: Tensor,
    samples: Tensor,
    columns: Sequence[str],
    most: int = 6,
    labels: tuple[str, str] = ("data held out", "samples of the flow"),
) -> None:
    """Every pair of the first columns: data (N, D) below the diagonal, samples (N, D) above, histograms on it."""
    count = min(most, data.shape[1])
    figure, axes = _figure(count, count, size=1.7)
    axes = axes.reshape(count, count)
    low, high = _range(data)
    for row, column in np.ndindex(count, count):
        axis: Axes = axes[row, column]
        axis.set_xlim(low[column], high[column])
        if row == column:
            for points, color in ((data, _DATA), (samples, _SAMPLES)):
                seen = points[:, row].cpu().numpy()
                bins = min(40, 5 + int(len(seen) ** 0.5))
                axis.hist(seen, bins, range=(low[row], high[row]), density=True, histtype="step", color=color)
            axis.set_yticks([])
        else:
            points, color = (data, _DATA) if row > column else (samples, _SAMPLES)
            points = _some(points, 1500)
            axis.plot(points[:, column], points[:, row], ".", markersize=1.0, color=color, rasterized=True)
            axis.set_ylim(low[row], high[row])
        axis.tick_params(labelsize=5)
        if row == count - 1:
            axis.set_xlabel(columns[column], fontsize=7)
        if column == 0:
            axis.set_ylabel(columns[row], fontsize=7)
    figure.suptitle(f"{labels[0]} (blue, below) and {labels[1]} (orange, above)", fontsize="medium")
    _write(path, figure)


def _density(model: VectorFlow, low: list[float], high: list[float], pixels: int = 200) -> Tensor:
    """The model's density on a grid, (pixels, pixels), the first axis upwards."""
    device = next(model.parameters()).device
    x, y = (torch.linspace(a, b, pixels, device=device) for a, b in zip(low, high, strict=True))
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
    return torch.cat([model.log_prob(part) for part in points.split(10_000)]).exp().reshape(pixels, pixels)


def _brightest(density: Tensor) -> float:
    """What to show as white: a few needles of density would leave the rest black."""
    return density[density.isfinite()].quantile(0.995).item() or 1.0


def _show_density(
    axis: Axes, density: Tensor, low: list[float], high: list[float], title: str, brightest: float
) -> None:
    extent = (low[0], high[0], low[1], high[1])
    axis.imshow(density.cpu().numpy(), extent=extent, origin="lower", aspect="auto", vmax=brightest, cmap="magma")
    _frame(axis, low, high, title)


def _show_points(axis: Axes, points: Tensor, low: list[float], high: list[float], title: str, color: str) -> None:
    axis.plot(*_some(points, 4000).T, ".", markersize=1.2, color=color, rasterized=True)
    _frame(axis, low, high, title)


def _frame(axis: Axes, low: list[float], high: list[float], title: str) -> None:
    axis.set_title(title, fontsize="medium", loc="left")
    axis.set_xlim(low[0], high[0])
    axis.set_ylim(low[1], high[1])


def _range(points: Tensor) -> tuple[list[float], list[float]]:
    """Both ends of what to show of each column: all but the farthest outliers, with a margin."""
    seen = points.cpu().double().numpy()
    low, high = np.quantile(seen, [0.002, 0.998], axis=0)
    margin = 0.1 * np.maximum(high - low, 1e-9)
    return (low - margin).tolist(), (high + margin).tolist()


def _some(points: Tensor, most: int) -> np.ndarray:
    return points[torch.linspace(0, len(points) - 1, min(most, len(points))).long()].cpu().numpy()


def _figure(rows: int, columns: int, size: float) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(columns * size, rows * size + 0.3), dpi=110, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).flatten()


def _write(path: Path, figure: Figure) -> None:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    write_whole(path, buffer.getvalue())
