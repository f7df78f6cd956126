"""How far a run is: a bar on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Progress of a run, on standard error.

    Args:
        total: steps in all.
        start: steps done before.
        quiet: show nothing at all, for every process but the first.
        stream: where to write; standard error by default.
    """

    def __init__(self, total: int, start: int = 0, quiet: bool = False, stream: TextIO | None = None):
        self.total = total
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._start = self._step = start
        self._began = self._last_line = time.monotonic()
        self._bar: tqdm | None = None
        if self._stream.isatty() and not quiet:
            self._bar = tqdm(total=total, initial=start, file=self._stream, unit="step", dynamic_ncols=True)

    def advance(self, figures: Mapping[str, float]) -> None:
        """One more step; ``figures`` are shown beside it."""
        self._step += 1
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in figures.items()}, refresh=False)
            self._bar.update()
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES or self._step == self.total:
            self.say(self._line(figures))

    def say(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        if self._quiet:
            return
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, figures: Mapping[str, float]) -> str:
        seconds = (time.monotonic() - self._began) / max(1, self._step - self._start)
        left = tqdm.format_interval(seconds * (self.total - self._step))
        shown = "".join(f"  {name} {value:.4g}" for name, value in figures.items())
        return f"step {self._step}/{self.total}{shown}  {seconds:.3g} s/step, {left} left"
