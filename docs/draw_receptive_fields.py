"""Draw the picture of docs/masked-convolutions.md: what PixelCNN and Gated PixelCNN see of an image.

python docs/draw_receptive_fields.py --out docs/figures
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
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from waveflow.atomic import write_whole
from waveflow.cli import parse_arguments, run_command
from waveflow.errors import InputError
from waveflow.networks import GatedPixelCNNStack, PixelCNNStack, receptive_field

PIXEL, BLIND, LATER = "#D55E00", "#F0E442", "#E4E4E4"  # Okabe & Ito: also for the colour-blind
DECADES = 12  # of gradient magnitude, from the strongest down, that the picture tells apart


@dataclass(frozen=True)
class Arguments:
    """Draw what the parameters of one pixel depend on, by gradients of networks with random weights.

    Args:
        size: Height and width of the image, odd.
        layers: Layers after the first one.
        first_kernel: Kernel of the first layer.
        out: Folder for the picture.
    """

    size: int = 15
    layers: int = 12
    first_kernel: int = 5
    out: str = "runs/receptive-fields"


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    if args.size < 5 or args.size % 2 == 0:
        raise InputError(f"--size expects an odd number from 5, got {args.size}")
    if args.layers < 0:
        raise InputError(f"--layers expects at least 0, got {args.layers}")
    if args.first_kernel < 3 or args.first_kernel % 2 == 0:
        raise InputError(f"--first-kernel expects an odd number from 3, got {args.first_kernel}")
    shape, position = (1, args.size, args.size), (0, args.size - 3, args.size // 2)
    torch.manual_seed(0)
    networks = {
        "PixelCNN": PixelCNNStack(shape, hidden=24, layers=args.layers, first_kernel=args.first_kernel),
        "Gated PixelCNN": GatedPixelCNNStack(shape, hidden=12, layers=args.layers + 1, first_kernel=args.first_kernel),
    }
    fields = {name: receptive_field(network, shape, position)[0].numpy() for name, network in networks.items()}

    figure = Figure(figsize=(9, 4.7), dpi=110, layout="constrained")
    for axis, (name, field) in zip(figure.subplots(1, 2), fields.items(), strict=True):
        draw(axis, field, position[1:])
        hidden = unseen(field, position[1:])
        what = f"{hidden} of the pixels before it unseen" if hidden else "all pixels before it seen"
        axis.set_title(f"{name}: {what}", loc="left")
    key = {"the pixel": PIXEL, "before it, and never seen": BLIND, "seen, darker: more": "#3B528B", "later": LATER}
    patches = [Patch(facecolor=colour, label=name) for name, colour in key.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(key), frameon=False)

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    write_whole(out / "receptive-fields.png", png.getvalue())
    counts = ", ".join(f"{name} {unseen(field, position[1:])}" for name, field in fields.items())
    print(f"pixels before ({position[1]}, {position[2]}) that are never seen: {counts}; picture in {out}")


def unseen(field: np.ndarray, pixel: tuple[int, int]) -> int:
    """How many pixels before one, row by row, have no influence on it."""
    return int((field.flatten()[: pixel[0] * field.shape[1] + pixel[1]] == 0).sum())


def draw(axis: Axes, field: np.ndarray, pixel: tuple[int, int]) -> None:
    place = np.arange(field.size).reshape(field.shape)
    blind = (field == 0) & (place < place[pixel])
    axis.imshow(np.where(blind, 0, 1), cmap=ListedColormap([BLIND, LATER]), vmin=0, vmax=1)
    strength = np.log10(np.where(field > 0, field / field.max(), np.nan))
    axis.imshow(strength, cmap="viridis_r", vmin=-DECADES, vmax=0)
    axis.add_patch(Rectangle((pixel[1] - 0.5, pixel[0] - 0.5), 1, 1, facecolor=PIXEL))
    axis.set(xticks=np.arange(-0.5, field.shape[1]), yticks=np.arange(-0.5, field.shape[0]))
    axis.tick_params(length=0, labelbottom=False, labelleft=False)
    axis.grid(color="white", lw=0.6)
    axis.spines[:].set_visible(False)


if __name__ == "__main__":
    sys.exit(run_command(main, "draw_receptive_fields.py"))
