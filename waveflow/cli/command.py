"""How a command ends: an exit code, and one line where something was wrong."""

import logging
import os
import sys
from collections.abc import Callable

import torch

from waveflow.errors import InputError

BAD_INPUT, INTERRUPTED = 2, 130


def run_command(call: Callable[[], None], program: str = "waveflow") -> int:
    """Run a command or a recipe; turn what its user can mend into one line on standard error.

    ``InputError``, ``OSError`` (a missing path, a full disk), ``FloatingPointError`` and running out of memory print
    ``program: error: ...`` without a traceback. Anything else is a defect of ours and keeps its traceback. Under
    torchrun the first process alone says what it has to say, unless it is another one that fails.

    Args:
        call: takes no arguments.
        program: how the line begins.

    Returns:
        The exit code: 0, 2 for bad input, 130 for Ctrl-C.

    Example:
        >>> run_command(lambda: print("hello"))
        hello
        0
    """
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger("waveflow").setLevel(logging.ERROR)
    try:
        call()
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left, as `head` does: nothing is wrong. What is buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError, FloatingPointError) as error:
        return _report(program, _describe(error))
    except (MemoryError, torch.OutOfMemoryError) as error:
        return _report(program, f"out of memory; smaller batches, segments or chunks need less ({_describe(error)})")
    return 0


def _report(program: str, message: str) -> int:
    print(f"{program}: error: {message}", file=sys.stderr)
    return BAD_INPUT


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
