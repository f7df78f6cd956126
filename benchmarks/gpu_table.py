"""A table of measurements that is written row by row, so that a command which is cut short loses one row at most."""

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from waveflow.atomic import write_whole
from waveflow.errors import InputError

Cell = str | int | float


class Table:
    """Rows told apart by their keys, in a CSV file and, beside it, in Markdown.

    Args:
        path: of the CSV file; the Markdown has the same name and the ending ``.md``.
        keys: names of the columns that tell rows apart.
        figures: names of the columns that are measured.
        resume: go on with the file that is there, leaving out the rows it has; otherwise there must be none.
        minutes: after which no further row is begun; 0 for no limit.

    Raises:
        InputError: if there is a file and ``resume`` is not set, or it is another one.
    """

    def __init__(self, path: Path, keys: Sequence[str], figures: Sequence[str], resume: bool, minutes: float = 0.0):
        self.path, self.keys, self.figures = Path(path), list(keys), [*figures, "note"]
        self.rows: list[dict[str, str]] = []
        self.left_out = 0
        self._end = time.monotonic() + 60 * minutes if minutes else float("inf")
        if self.path.exists():
            if not resume:
                raise InputError(f"{self.path} is there already: go on with it by --resume, or choose another --out")
            self._read()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def measure(self, call: Callable[[], Mapping[str, Cell]], **keys: Cell) -> None:
        """A row, unless it is there already or the time is over; one that fails says so and is tried again next time.

        Args:
            call: measures; its figures may be fewer than the columns.
            keys: of the row.
        """
        key = {name: str(keys[name]) for name in self.keys}
        if any(all(row[name] == value for name, value in key.items()) and not _failed(row) for row in self.rows):
            return
        if time.monotonic() > self._end:
            self.left_out += 1
            return
        try:
            found = {name: _format(value) for name, value in call().items()}
        except (RuntimeError, ImportError, torch._dynamo.exc.TorchDynamoException) as error:
            found = {"note": f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"}
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        row = dict.fromkeys([*self.keys, *self.figures], "") | key | found
        self.rows = [r for r in self.rows if any(r[name] != value for name, value in key.items())] + [row]
        self._write()
        shown = [*key.values(), *(f"{name} {value}" for name, value in found.items() if value)]
        print("  ".join(shown), flush=True)

    def _read(self) -> None:
        with open(self.path, newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != [*self.keys, *self.figures]:
                raise InputError(f"{self.path}: expected columns {', '.join([*self.keys, *self.figures])}")
            self.rows = list(reader)

    def _write(self) -> None:
        head = [*self.keys, *self.figures]
        lines = [head, *([row[name] for name in head] for row in self.rows)]
        write_whole(self.path, "".join(",".join(map(_quoted, line)) + "\n" for line in lines).encode())
        lines.insert(1, ["---"] * len(head))
        markdown = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        write_whole(self.path.with_suffix(".md"), (markdown + "\n").encode())


def seconds_of(call: Callable[[], object], device: torch.device, repeats: int, warm_up: int = 2) -> float:
    """The least seconds of several calls, what it started on the device included."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        _synchronize(device)
        start = time.perf_counter()
        call()
        _synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def peak_megabytes(call: Callable[[], object], device: torch.device) -> Cell:
    """The most memory that tensors took on a GPU during a call; nothing is known of a CPU."""
    if device.type != "cuda":
        return ""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return round(torch.cuda.max_memory_allocated(device) / 1e6)


def matmul_tflops(device: torch.device, dtype: torch.dtype, size: int = 8192, repeats: int = 20) -> float:
    """What the device does in large products of random matrices, 10^12 operations a second."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: a @ b, device, repeats, 5) / 1e12


def _failed(row: Mapping[str, str]) -> bool:
    return row["note"].startswith("failed")


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _format(value: Cell) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n') else cell
