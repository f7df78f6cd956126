"""The subcommands of ``waveflow``."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from waveflow import __version__
from waveflow.cli import compare, curves, edit, evaluate, import_checkpoint, info, interpolate, sample, vocode
from waveflow.cli.command import run_command
from waveflow.errors import InputError


class _Parser(argparse.ArgumentParser):
    """Gives its errors to :func:`run_command`, so that they are one line like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``waveflow`` command.

    Args:
        argv: the words behind ``waveflow``; None for those of the process.

    Returns:
        The exit code: 0, or 2 after one line on standard error that says what was wrong.
    """
    return run_command(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> None:
    parser = _Parser(
        prog="waveflow",
        description="Use trained models: speech from mels, images, blends and edits, figures, checkpoints. "
        "Training is in recipes/.",
        epilog="Wrong input ends with exit code 2 and one line that says what was expected.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"waveflow {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (vocode, evaluate, compare, curves, sample, interpolate, edit, info, import_checkpoint):
        command.add_to(commands)
    arguments = parser.parse_args(argv)
    arguments.run(arguments)
