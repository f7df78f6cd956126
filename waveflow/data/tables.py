"""Tables of numbers as data sets of vectors: toys, tables in scikit-learn, UCI sets, files of one's own."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from waveflow.data.table_files import read_table
from waveflow.data.toys import TOYS, sample_toy
from waveflow.errors import InputError

_TOY_ROWS = 17_500
_LEAST_ROWS = 20
_SEED = 0  # of splits and noise: a table is the same in every run


@dataclass(frozen=True)
class Table:
    """Rows of a table, divided; all are (N, D), float32, in the units of the source.

    Attributes:
        name: what was asked for.
        columns: names of the D columns.
        train: rows to learn from.
        validation: rows to choose by.
        test: rows to report on.
        quantised: columns in which few values recur: their density has no bound, and likelihoods mean little.
        dropped: rows that were left out for holding values that are not finite.
    """

    name: str
    columns: tuple[str, ...]
    train: Tensor
    validation: Tensor
    test: Tensor
    quantised: tuple[str, ...] = ()
    dropped: int = 0

    @property
    def known(self) -> Tensor:
        """Training and validation rows together, whose statistics standardise a table in the papers."""
        return torch.cat([self.train, self.validation])


def load_table(
    data: str | os.PathLike,
    path: str | os.PathLike | None = None,
    drop_nan: bool = False,
    dequantise: bool = False,
) -> Table:
    """Read a table, check it and divide it: the last tenth for testing, the last tenth of the rest for validation.

    Rows are shuffled before, always alike; those of MINIBOONE are not, as in the papers (Papamakarios et al., 2017;
    arXiv:1705.07057), whose preparation of POWER is followed, too: without reactive power and intensity, and with
    noise as wide as the steps of the meters.

    Args:
        data: a name out of :data:`TABLES`, or a file that :func:`~waveflow.data.table_files.read_table` reads.
        path: the file of ``power`` or ``miniboone``.
        drop_nan: leave out rows with values that are not finite.
        dequantise: add uniform noise to columns in which few values recur, as wide as the least step between these.

    Raises:
        InputError: for an unknown name, a path that is missing or superfluous, or a table with columns that are not
            numeric, rows that are not finite (unless ``drop_nan``), columns that are constant, or too few rows.
        OSError: if the file cannot be read.
    """
    name, shuffled = os.fspath(data), True
    if name in UCI:
        if path is None:
            raise InputError(f"{name} expects --path FILE, its table as .npz or .npy")
        prepare, shuffled = UCI[name]
        values, columns = read_table(path)
        values, columns, dropped = _finite(values, columns, drop_nan, os.fspath(path))
        values, columns = prepare(values, columns)
    elif path is not None:
        raise InputError(f"--path belongs to {' and '.join(UCI)}, got it with {name}")
    else:
        if name in TOYS:
            values, columns = sample_toy(name, _TOY_ROWS, _SEED), ("x1", "x2")
        elif name in SKLEARN:
            values, columns = SKLEARN[name]()
        elif Path(name).suffix or Path(name).exists():
            values, columns = read_table(name)
        else:
            raise InputError(f"{name!r} is neither a file nor one of {', '.join(TABLES)}")
        values, columns, dropped = _finite(values, columns, drop_nan, name)

    if len(values) < _LEAST_ROWS:
        raise InputError(f"{name}: expected at least {_LEAST_ROWS} rows, got {len(values)}")
    rng = np.random.default_rng(_SEED)
    if shuffled:
        values = values[rng.permutation(len(values))]
    test = len(values) // 10
    _check_spread(values[:-test], columns, name)
    quantised = [i for i, column in enumerate(values.T) if len(np.unique(column)) < len(column) / 5]
    if dequantise:
        for i in quantised:
            step = np.diff(np.unique(values[:, i])).min()
            values[:, i] += rng.uniform(0, step, len(values))
        quantised = []
    rows = torch.as_tensor(values, dtype=torch.float32)
    validation = (len(rows) - test) // 10
    train, validation, test = rows.split([len(rows) - test - validation, validation, test])
    return Table(name, tuple(columns), train, validation, test, tuple(columns[i] for i in quantised), dropped)


def _finite(values: np.ndarray, columns: Sequence[str], drop: bool, name: str) -> tuple[np.ndarray, Sequence[str], int]:
    bad = ~np.isfinite(values).all(1)
    count = int(bad.sum())
    if count and not drop:
        where = ", ".join(c for c, ok in zip(columns, np.isfinite(values).all(0), strict=True) if not ok)
        raise InputError(
            f"{name}: {count} of {len(values)} rows hold values that are not finite (in {where}); "
            "--drop-nan leaves these rows out"
        )
    return np.array(values[~bad]), columns, count


def _check_spread(values: np.ndarray, columns: Sequence[str], name: str) -> None:
    low, high = values.min(0), values.max(0)
    constant = [c for c, a, b in zip(columns, low, high, strict=True) if a == b]
    if constant:
        raise InputError(f"{name}: leave out what is constant over the rows to learn from: {', '.join(constant)}")
    fine = values.std(0) < 100 * np.finfo(np.float32).eps * np.abs(values).max(0)
    if fine.any():
        names = ", ".join(c for c, bad in zip(columns, fine, strict=True) if bad)
        raise InputError(f"{name}: varies too little for float32, so subtract an offset first: {names}")


def _prepare_power(values: np.ndarray, columns: Sequence[str]) -> tuple[np.ndarray, Sequence[str]]:
    if values.shape[1] != 8:
        raise InputError(f"power expects 8 columns (3 of power and voltage, ..., time), got {values.shape[1]}")
    kept = [0, 2, 4, 5, 6, 7]
    widths = np.array([0.001, 0.01, 1.0, 1.0, 1.0, 0.0])
    noise = np.random.default_rng(_SEED).random((len(values), 6))
    return values[:, kept] + widths * noise, [columns[i] for i in kept]


def _prepare_miniboone(values: np.ndarray, columns: Sequence[str]) -> tuple[np.ndarray, Sequence[str]]:
    if values.shape[1] != 43:
        raise InputError(f"miniboone expects the 43 columns that are left by the papers, got {values.shape[1]}")
    return values, columns


def _from_sklearn(loader: str) -> tuple[np.ndarray, Sequence[str]]:
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise InputError("this table is in scikit-learn: pip install 'waveflow[recipes]'") from None
    table = getattr(datasets, loader)()
    return np.asarray(table.data, dtype=np.float64), [str(name) for name in table.feature_names]


SKLEARN: dict[str, Callable[[], tuple[np.ndarray, Sequence[str]]]] = {
    "breast-cancer": partial(_from_sklearn, "load_breast_cancer"),
    "wine": partial(_from_sklearn, "load_wine"),
    "diabetes": partial(_from_sklearn, "load_diabetes"),
}
"""Real tables that come inside scikit-learn."""

UCI = {"power": (_prepare_power, True), "miniboone": (_prepare_miniboone, False)}
"""Sets of the papers, given as files: how each is prepared, and whether its rows are shuffled."""

TABLES = (*TOYS, *SKLEARN, *UCI)
"""All names that :func:`load_table` knows."""
