"""What training has cost in minutes, over interruptions."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from waveflow.atomic import write_whole

logger = logging.getLogger("waveflow")


class Minutes:
    """A stopwatch whose reading stays with the run, and which is stopped where nothing is learnt.

    On a CPU it counts the minutes that the process was at work, on all its threads, so that other programs do not
    count; on a GPU the minutes that pass.

    Args:
        path: JSON file that it is read from, if there, and written to; one that is damaged is only warned about.
        device: where training happens.

    Attributes:
        unit: ``"CPU minutes"`` or ``"minutes"``.
        at: minutes at each step that :meth:`mark` was called with.
    """

    def __init__(self, path: Path, device: torch.device):
        self.path = path
        self.unit, self._clock = ("CPU minutes", time.process_time) if device.type == "cpu" else ("minutes", time.time)
        self.at: dict[int, float] = {}
        self._total, self._since = 0.0, None
        if path.exists():
            self._read()

    @property
    def total(self) -> float:
        """Minutes so far."""
        return self._total + (0.0 if self._since is None else (self._clock() - self._since) / 60)

    def start(self) -> None:
        """Let it run."""
        if self._since is None:
            self._since = self._clock()

    def stop(self) -> None:
        """Halt it."""
        self._total, self._since = self.total, None

    def mark(self, step: int) -> None:
        """Note that ``step`` is reached; what lies beyond it, of a run that was set back, is forgotten."""
        self.at = {s: minutes for s, minutes in self.at.items() if s < step} | {step: self.total}

    def save(self) -> None:
        """Write it to its file, whole or not at all."""
        content = {"unit": self.unit, "total": self.total, "at": self.at}
        write_whole(self.path, (json.dumps(content, indent=2) + "\n").encode())

    def _read(self) -> None:
        try:
            before = json.loads(self.path.read_bytes())
            total = float(before["total"])
            at = {int(step): float(minutes) for step, minutes in before["at"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            logger.warning("%s is damaged: the minutes of this run are counted anew", self.path)
        else:
            self._total, self.at = total, at

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the stopwatch does not run."""
        self.stop()
        try:
            yield
        finally:
            self.start()
