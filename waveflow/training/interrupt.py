"""SIGINT and SIGTERM as a wish to stop, not as a blow."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """A run was stopped by a signal and saved before it left.

    It is a ``SystemExit``, so that a script that does not catch it ends with the shell's code for that signal:
    130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, signum: int):
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum)


class _Abandoned(BaseException):
    """Leaves a call made by :meth:`InterruptWatch.abandonable`; user code does not catch it by ``except Exception``."""


class InterruptWatch:
    """While this context is entered, SIGINT and SIGTERM only set ``signum``; who trains looks at it between steps.

    A second Ctrl-C raises ``KeyboardInterrupt`` as usual, except under torchrun, which passes each signal on more than
    once. Outside the main thread Python allows no signal handlers, and the watch sees nothing.

    Args:
        message: written to standard error when the first signal comes; empty for nothing.
    """

    def __init__(self, message: str = ""):
        self.signum = 0
        self._message = message
        self._abandonable = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "InterruptWatch":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def abandonable(self, call: Callable[[], T]) -> T | None:
        """``call()``, or None where a signal cut it short: for work without effect on the training state.

        Validation may take longer than the grace that a scheduler leaves between SIGTERM and SIGKILL.
        """
        if self.signum:
            return None
        try:
            self._abandonable = True
            result = call()
            self._abandonable = False
            return result
        except _Abandoned:
            return None
        finally:
            self._abandonable = False

    def heed(self) -> None:
        """Leave an abandonable call here, where a signal came and the call went on.

        Python loses what a handler raises in the middle of a destructor or of the callback of a weak reference, so
        long work asks now and then.
        """
        if self.signum and self._abandonable:
            raise _Abandoned

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self.signum:
            self.signum = signum
            if self._message:
                # Not print: a handler may run in the middle of another write to the same buffer.
                os.write(2, f"\n{self._message}\n".encode())
            if self._abandonable:
                raise _Abandoned
        elif signum == signal.SIGINT and "TORCHELASTIC_RUN_ID" not in os.environ:
            raise KeyboardInterrupt
