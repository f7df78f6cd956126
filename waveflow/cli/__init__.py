"""The ``waveflow`` command, and what it shares with the recipes: arguments, errors in one line."""

from waveflow.cli.arguments import parse_arguments
from waveflow.cli.command import run_command
from waveflow.cli.default_out import default_out
from waveflow.cli.main import main

__all__ = ["default_out", "main", "parse_arguments", "run_command"]
