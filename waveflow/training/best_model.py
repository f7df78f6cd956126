"""The model of the best validation, kept beside the last one."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from waveflow.atomic import write_whole
from waveflow.training.run_folder import RunFolder

logger = logging.getLogger("waveflow")


class BestModel:
    """A folder with the model that validation figures spoke best of, lower being better, and ``best.json``.

    It outlives interruptions. Figures of other validation data do not compare: where ``measured_on`` differs from
    that of the runs before, the best is looked for anew.

    Args:
        folder: for ``config.json``, ``model.safetensors`` and ``best.json``; made when there is a model to keep.
        measured_on: what the figures are about, as plain values.

    Attributes:
        step: of the best model so far; None before any.
        figure: of its validation; infinite before any.
    """

    def __init__(self, folder: Path, measured_on: Mapping[str, Any]):
        self.folder, self.measured_on = folder, dict(measured_on)
        self.step: int | None = None
        self.figure = math.inf
        self._record = folder / "best.json"
        if self._record.exists():
            self._read()

    def offer(self, step: int, figure: float, export: Callable[[Path], None]) -> bool:
        """Keep the model if its figure is the lowest so far; whether it is.

        Args:
            step: steps done.
            figure: of validation; one that is not finite is never the best.
            export: writes ``config.json`` and ``model.safetensors`` into the folder it is given.

        Raises:
            OSError: if it cannot be written; the model before is intact then.
        """
        if not figure < self.figure:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        RunFolder(self.folder).export(export)
        # After the weights: what dies in between leaves a model that is better than its record, never a worse one.
        content = {"step": step, "figure": figure, "measured_on": self.measured_on}
        write_whole(self._record, (json.dumps(content, indent=2) + "\n").encode())
        self.step, self.figure = step, figure
        return True

    def _read(self) -> None:
        try:
            before = json.loads(self._record.read_bytes())
            step, figure, measured_on = int(before["step"]), float(before["figure"]), before["measured_on"]
        except (ValueError, TypeError, KeyError):
            logger.warning("%s is damaged: the best model of this run is looked for anew", self._record)
            return
        if measured_on == self.measured_on and (self.folder / "model.safetensors").exists():
            self.step, self.figure = step, figure
