"""Types of a configuration's fields, checked against what its dataclass declares."""

import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from waveflow.errors import InputError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
_PLURALS = {int: "whole numbers", float: "numbers", bool: "true or false", str: "words"}


def require_types(model: str, config: type, fields: Mapping[str, Any]) -> None:
    """Refuse fields of another type than ``config`` declares: what a file or a command line says may be anything.

    A whole number does where a number is expected, a list where a tuple is; true and false are no numbers. Which words
    a ``Literal`` takes is for the configuration itself to say.

    Args:
        model: name of the model, for the message.
        config: a dataclass.
        fields: values of some of its fields.

    Raises:
        InputError: naming the field, what is expected and what came.
    """
    declared = typing.get_type_hints(config)
    for name, value in fields.items():
        if not _fits(value, declared[name]):
            raise InputError(f"{model} expects {name} as {_in_words(declared[name])}, got {value!r}")


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return type(value) in map(type, arguments)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _in_words(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_in_words(one) for one in arguments)
    if origin is Literal:
        return _in_words(type(arguments[0]))
    if origin is tuple:
        count = "" if arguments[1:] == (...,) else f"{len(arguments)} "
        return f"a list of {count}{_PLURALS[arguments[0]]}"
    if kind is type(None):
        return "null"
    return _WORDS.get(kind) or f"a {kind.__name__}"
