"""A folder that appears whole, or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waveflow.errors import InputError


@contextmanager
def staged_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """An empty folder beside ``target``, which takes its place when the block ends without an error.

    Args:
        target: the folder to be.
        replace: take the place of one that is there; it is gone only when the new one is there.

    Raises:
        InputError: if there is one and ``replace`` is False.
        OSError: if the folder cannot be made or renamed; the one before is in its place then.
    """
    staged, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
    if target.exists() and not replace:
        raise InputError(f"{target} is there already; say --replace, or another --name")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        yield staged
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        try:
            staged.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
