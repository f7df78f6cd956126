"""Where a run lives on disk: one model at the top, the trainer's own things below."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from waveflow.errors import InputError
from waveflow.training.checkpoint import PARTIAL, move_durably, read_checkpoint, replace_file, write_checkpoint

KEPT_CHECKPOINTS = 2


class RunFolder:
    """The folder that ``--out`` names.

    ``config.json`` and ``model.safetensors`` at its top are what ``from_pretrained`` loads. ``checkpoints/`` holds the
    last two training states, ``logs/`` TensorBoard events and ``metrics.csv``, ``samples/`` what the recipe draws.
    Every file is replaced in one step: whenever the process dies, a whole model and a whole checkpoint remain.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.logs = self.path / "logs"
        self.samples = self.path / "samples"

    def prepare(self, resume: bool) -> None:
        """Make the folders, prove that they can be written, and clear what a killed process left half-written.

        Raises:
            InputError: if the folder cannot be made or written, holds a run and ``resume`` is False, or holds none and
                ``resume`` is True.
        """
        try:
            if resume and not self._checkpoint_files():
                raise InputError(f"nothing to resume in {self.path}: there is no checkpoint in {self.checkpoints}")
            if not resume and self._holds_a_run():
                raise InputError(f"{self.path} already holds a run: resume it (--resume) or choose another folder")
            for folder in (self.path, self.checkpoints, self.logs, self.samples):
                folder.mkdir(parents=True, exist_ok=True)
                self._clear_partial(folder)
                replace_file(folder / "probe", lambda partial: partial.write_bytes(bytes(65536)))
                (folder / "probe").unlink()
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror or error}") from None

    def require_space(self, size: int) -> None:
        """Refuse to start where the disk has less than ``size`` bytes free.

        Raises:
            InputError: saying how much there is and how much is needed.
        """
        free = shutil.disk_usage(self.path).free
        if free < size:
            raise InputError(
                f"{self.path} has {free / 1e6:,.0f} MB of disk space free, "
                f"the model and its checkpoints need {size / 1e6:,.0f} MB"
            )

    def save(self, step: int, state: dict[str, Any], export: Callable[[Path], None]) -> None:
        """Replace the exported model, then add a checkpoint and drop all but the last two.

        In this order: a checkpoint of step s is proof that the model at the top is at least as new.

        Args:
            step: steps done, which names the checkpoint.
            state: what :meth:`load` shall return.
            export: writes ``config.json`` and ``model.safetensors`` into the folder it is given.

        Raises:
            OSError: in one line; the model and the checkpoints of the save before are intact.
        """
        try:
            self.export(export)
            write_checkpoint(self.checkpoints / f"step-{step:08d}.safetensors", state)
        except (OSError, SafetensorError) as error:  # the latter is how safetensors reports a full disk
            before = self._checkpoint_files()
            intact = f"those of {before[-1].stem} are intact" if before else "there are none older"
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"could not save model and checkpoint of step {step} ({reason}); {intact}") from error
        for old in self._checkpoint_files()[:-KEPT_CHECKPOINTS]:
            old.unlink()

    def load(self) -> tuple[Path, dict[str, Any]]:
        """The newest readable checkpoint and what is in it.

        Raises:
            InputError: if there is none; a damaged one with a whole one before it is only warned about.
        """
        damage: list[str] = []
        for path in reversed(self._checkpoint_files()):
            try:
                state = read_checkpoint(path)
            except InputError as error:
                damage.append(str(error))
                continue
            if damage:
                warnings.warn(f"{'; '.join(damage)}; continuing from {path.name} instead", stacklevel=2)
            return path, state
        raise InputError("; ".join(damage) or f"nothing to resume in {self.path}")

    def export(self, export: Callable[[Path], None]) -> None:
        """Replace the model at the top by what ``export`` writes into the folder it is given, file by file."""
        partial = self.path / f"{PARTIAL}model"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir()
            export(partial)
            # Weights last. A run has one configuration, so a mixture of two saves is still a whole model.
            for file in sorted(partial.iterdir(), key=lambda file: (file.suffix == ".safetensors", file.name)):
                move_durably(file, self.path / file.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _checkpoint_files(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*.safetensors"))

    def _holds_a_run(self) -> bool:
        return (self.path / "model.safetensors").exists() or bool(self._checkpoint_files())

    @staticmethod
    def _clear_partial(folder: Path) -> None:
        for leftover in folder.glob(f"{PARTIAL}*"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
