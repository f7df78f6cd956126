"""What a run writes down: figures in a CSV file and in TensorBoard, sound and pictures in TensorBoard."""

import os
from collections.abc import Mapping

import numpy as np
import torch

from waveflow.training.run_folder import RunFolder

_HEADER = "step,name,value\n"


class RunLog:
    """Log of one run.

    ``logs/metrics.csv`` has one row a figure, ``step,name,value``, numbers written so that they are read back exactly;
    ``pandas.read_csv(...).pivot(index="step", columns="name", values="value")`` makes a table of it. It holds nothing
    that depends on the clock: equal runs write equal bytes.

    Args:
        folder: the run's folder.
        step: steps done so far; TensorBoard forgets what an earlier process wrote beyond them.
        size: bytes of ``metrics.csv`` that belong to the run up to that step; what follows is cut off.

    Attributes:
        step: the step that what is logged belongs to, kept by the trainer.
        samples: folder for files, such as the wavs of a ``sample`` function.
    """

    def __init__(self, folder: RunFolder, step: int = 0, size: int = 0):
        # Late, because the import takes seconds.
        from torch.utils.tensorboard import SummaryWriter

        self.step = step
        self.samples = folder.samples
        self._path = folder.logs / "metrics.csv"
        self._file = open(self._path, "a", newline="")  # noqa: SIM115
        self._file.truncate(min(size, self._path.stat().st_size))
        if not self._path.stat().st_size:
            self._file.write(_HEADER)
        self._board = SummaryWriter(str(folder.logs), purge_step=step + 1 if step else 0)

    @property
    def size(self) -> int:
        """Bytes of ``metrics.csv`` written so far."""
        self.flush()
        return self._path.stat().st_size

    def scalars(self, figures: Mapping[str, float]) -> None:
        """Write figures, by name, to both places. A name such as ``validate/loss`` groups them in TensorBoard."""
        for name, value in figures.items():
            self._file.write(f"{self.step},{name},{float(value)!r}\n")
            self._board.add_scalar(name, value, self.step)
        self.flush()

    def timing(self, figures: Mapping[str, float]) -> None:
        """Write figures that depend on the clock, to TensorBoard only."""
        for name, value in figures.items():
            self._board.add_scalar(name, value, self.step)

    def audio(self, name: str, waveform: torch.Tensor, sample_rate: int) -> None:
        """A sound: (T,) or (1, T) in [-1, 1]."""
        self._board.add_audio(name, waveform.detach().float().cpu().reshape(1, -1), self.step, sample_rate)

    def image(self, name: str, picture: np.ndarray | torch.Tensor) -> None:
        """A picture: (H, W, 3) or (H, W), uint8 or float in [0, 1]."""
        picture = picture.detach().cpu().numpy() if isinstance(picture, torch.Tensor) else picture
        self._board.add_image(name, picture, self.step, dataformats="HW" if picture.ndim == 2 else "HWC")

    def flush(self) -> None:
        """Hand everything to the operating system."""
        try:
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def sync(self) -> None:
        """Put everything on the disk."""
        self.flush()
        os.fsync(self._file.fileno())
        self._board.flush()

    def close(self) -> None:
        """Write what is left and close the files."""
        self._board.close()
        self._file.close()
