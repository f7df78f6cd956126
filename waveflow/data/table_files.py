"""Files that hold a table: .csv, .npy, .npz, .parquet."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from waveflow.errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

Columns = list[str]


def read_table(path: str | os.PathLike) -> tuple[np.ndarray, Columns]:
    """Rows and names of columns of a table of numbers.

    - ``.csv``: separated by commas, semicolons or tabs, with a line of names or without; empty cells are NaN;
    - ``.npy``: an array (N, D); ``.npz``: such an array as ``x`` or alone, and names as ``columns`` if there are any;
    - ``.parquet``.

    Returns:
        (N, D) float64, and D names.

    Raises:
        InputError: for another kind of file, one that cannot be understood, or columns that are not numeric, by name.
        OSError: if the file is not there or cannot be read.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise InputError(f"{path}: expected a file ending in {', '.join(_READERS)}")
    with open(path, "rb"):  # a missing file is said by its name, whatever the reader would say
        pass
    values, columns = _READERS[path.suffix](path)
    if len(set(columns)) != len(columns):
        raise InputError(f"{path}: expected columns with names of their own, got {', '.join(columns)}")
    return values, columns


def _read_csv(path: Path) -> tuple[np.ndarray, Columns]:
    import pandas

    try:
        with open(path, encoding="utf-8") as file:
            first = file.readline()
        separator = max(",;\t", key=first.count)
        header = None if all(map(_is_number, first.strip().split(separator))) else 0
        frame = pandas.read_csv(path, sep=separator, header=header, skipinitialspace=True)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a table in CSV ({_one_line(error)})") from None
    return _from_frame(frame, path)


def _read_parquet(path: Path) -> tuple[np.ndarray, Columns]:
    import pandas
    from pyarrow import ArrowException

    try:
        return _from_frame(pandas.read_parquet(path), path)
    except ArrowException as error:
        raise InputError(f"{path}: not a Parquet file ({_one_line(error)})") from None


def _from_frame(frame: "DataFrame", path: Path) -> tuple[np.ndarray, Columns]:
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    def numeric(dtype) -> bool:
        return (is_numeric_dtype(dtype) or is_bool_dtype(dtype)) and not is_complex_dtype(dtype)

    names = [f"x{name + 1}" if isinstance(name, int) else str(name) for name in frame.columns]
    text = [name for name, dtype in zip(names, frame.dtypes, strict=True) if not numeric(dtype)]
    if text:
        raise InputError(f"{path}: expected numbers only, but these columns are not numeric: {', '.join(text)}")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan), names


def _read_npy(path: Path) -> tuple[np.ndarray, Columns]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not an array of numbers ({_one_line(error)})") from None
    return _from_array(array, None, path)


def _read_npz(path: Path) -> tuple[np.ndarray, Columns]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name for name in arrays.files if name != "columns"]
            if "x" not in names and len(names) != 1:
                raise InputError(f"{path}: expected an array named x, got {', '.join(arrays.files) or 'none'}")
            array = arrays["x" if "x" in names else names[0]]
            columns = arrays["columns"].tolist() if "columns" in arrays.files else None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not an archive of arrays ({_one_line(error)})") from None
    return _from_array(array, columns, path)


def _from_array(array: np.ndarray, columns: Columns | None, path: Path) -> tuple[np.ndarray, Columns]:
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected numbers (rows, columns), got {array.dtype} of shape {array.shape}")
    names = [f"x{i + 1}" for i in range(array.shape[1])] if columns is None else [str(name) for name in columns]
    if len(names) != array.shape[1]:
        raise InputError(f"{path}: expected {array.shape[1]} names of columns, got {len(names)}")
    return array.astype(np.float64), names


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip() or "nan")
    except ValueError:
        return False
    return True


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _with_pandas(read: Callable[[Path], tuple[np.ndarray, Columns]]) -> Callable[[Path], tuple[np.ndarray, Columns]]:
    def call(path: Path) -> tuple[np.ndarray, Columns]:
        try:
            return read(path)
        except ModuleNotFoundError as error:
            raise InputError(f"{path}: reading it takes {error.name}: pip install 'waveflow[recipes]'") from None

    return call


_READERS = {
    ".csv": _with_pandas(_read_csv),
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _with_pandas(_read_parquet),
}
