"""A dataclass as command line flags: typed, documented, from a YAML file too."""

import dataclasses
import inspect
import re
import typing
from argparse import ArgumentError
from collections.abc import Sequence
from typing import TypeVar

from docstring_parser import parse as parse_docstring
from jsonargparse import ArgumentParser

from waveflow.errors import InputError

T = TypeVar("T")


def parse_arguments(arguments: type[T], argv: Sequence[str] | None = None) -> T:
    """Read the command line of a recipe into its dataclass.

    Each field is a flag (``batch_size`` is ``--batch-size``; a bool is a switch), the docstring's ``Args`` are the
    help, those of classes it derives from included. ``--config file.yaml`` reads fields from a file, ``--print_config``
    prints such a file.

    Args:
        arguments: a dataclass whose fields all have defaults.
        argv: the words of the command line; None for those of the process.

    Raises:
        InputError: for an unknown flag, a value of another type, or a configuration file that cannot be used.
        SystemExit: after ``--help`` and ``--print_config``.
    """
    described = [parse_docstring(inspect.cleandoc(cls.__doc__ or "")) for cls in arguments.__mro__]
    help_of = {param.arg_name: param.description for one in reversed(described) for param in one.params}
    types = typing.get_type_hints(arguments)
    parser = ArgumentParser(description=described[0].short_description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings.")
    for field in dataclasses.fields(arguments):
        flag, text = "--" + field.name.replace("_", "-"), help_of.get(field.name)
        if types[field.name] is bool:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            parser.add_argument(flag, type=types[field.name], default=field.default, help=text)
    try:
        values = parser.parse_args(argv)
    except ArgumentError as error:
        raise InputError(_one_line(str(error))) from None
    return arguments(**{field.name: values[field.name] for field in dataclasses.fields(arguments)})


def _one_line(message: str) -> str:
    """jsonargparse speaks to programmers and over several lines."""
    message = re.sub(r'^Parser key "(\w+)":', lambda found: f"--{found[1].replace('_', '-')}:", message)
    message = re.sub(r"a typing\.Literal\[(.*?)\]", r"one of \1", message)
    message = re.sub(r"a <class '(\w+)'>", r"\1", message)
    return " ".join(message.split())
