"""Pictures of log mels, one above the other on one scale."""

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.audio.mel_config import MelConfig
from waveflow.audio.mel_filterbank import band_centres
from waveflow.errors import InputError

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

Panel = tuple[str, Tensor | np.ndarray]
"""A title and a mel (n_mels, frames) or (1, n_mels, frames)."""

_TICKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000)


def mel_picture(
    path: str | os.PathLike, panels: Sequence[Panel], config: MelConfig, scale: Tensor | np.ndarray | None = None
) -> None:
    """Write a PNG of mels, whole or not at all; equal mels give equal bytes.

    Args:
        path: where to, by custom ending in .png.
        panels: title and mel of each panel, top to bottom; all share the range of the first, by custom the real one.
        config: how the mels were made: the axes are seconds and Hz.
        scale: a mel whose range is shared instead, so that several pictures can be held against each other.

    Raises:
        InputError: for no panels, or a mel of other bands. NaN is left white, not refused.
        OSError: naming the file, if it cannot be written.
    """
    buffer = io.BytesIO()
    _draw(panels, config, scale).print_png(buffer, metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def mel_image(panels: Sequence[Panel], config: MelConfig) -> np.ndarray:
    """The picture of ``mel_picture`` as pixels (H, W, 3) uint8, for TensorBoard with ``dataformats="HWC"``."""
    canvas = _draw(panels, config)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw(panels: Sequence[Panel], config: MelConfig, scale: Tensor | np.ndarray | None = None) -> "FigureCanvasAgg":
    # A second to load, which no other use of the package should wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not panels:
        raise InputError("a picture of mels needs at least one")
    titles = [title for title, _ in panels]
    mels = [_array(mel, title, config) for title, mel in panels]
    reference = mels[0] if scale is None else _array(scale, "the scale", config)
    seen = reference[np.isfinite(reference)]
    low, high = (seen.min(), seen.max()) if seen.size else (config.log(config.log_floor), 0.0)

    # Figure and canvas by hand: pyplot would keep every figure and choose a backend for the whole process.
    figure = Figure(figsize=(10, 0.6 + 2.2 * len(mels)), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(mels), 1, sharex=True, squeeze=False)[:, 0]
    centres = band_centres(config)
    ticks = [hz for hz in _TICKS_HZ if centres[0] <= hz <= centres[-1]]
    for title, mel, axis in zip(titles, mels, axes, strict=True):
        seconds = mel.shape[1] * config.hop_length / config.sample_rate
        extent = (0, seconds, -0.5, config.n_mels - 0.5)
        image = axis.imshow(
            mel,
            vmin=low,
            vmax=high,
            cmap="magma",
            aspect="auto",
            origin="lower",
            extent=extent,
            interpolation="nearest",
        )
        axis.set_title(title, fontsize="medium", loc="left")
        axis.set_yticks(np.interp(ticks, centres, np.arange(config.n_mels)), [str(hz) for hz in ticks])
        axis.set_ylabel("Hz")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=list(axes), label="ln" if config.log_base == "e" else "log10", pad=0.01)
    return canvas


def _array(mel: Tensor | np.ndarray, title: str, config: MelConfig) -> np.ndarray:
    array = mel.detach().cpu().double().numpy() if isinstance(mel, Tensor) else np.asarray(mel)
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    if array.ndim != 2 or array.shape[0] != config.n_mels or array.shape[1] == 0:
        raise InputError(f"a picture needs mels ({config.n_mels}, frames), got {array.shape} for {title}")
    return array
