"""A table of measurements that is written row by row, so that a command which is cut short loses one row at most."""

import csv
import gc
import io
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from waveflow.atomic import write_whole
from waveflow.errors import InputError

Cell = str | int | float
FAILED = "failed"


class Table:
    """Rows told apart by their keys, in a CSV file and, beside it, in Markdown; both whole after every row.

    Args:
        path: of the CSV file; the Markdown has the same name and the ending ``.md``.
        keys: names of the columns that tell rows apart.
        figures: names of the columns that are measured.
        resume: go on with the file that is there, leaving out the rows it has; otherwise there must be none.
        end: on the monotonic clock; no row is begun after it, and one that is not done soon after it is broken off.
        patience: seconds that a row may take; one that takes longer is broken off, says so and is not tried again.
        heading: of the Markdown.
        by: a key; the Markdown has a table for each of its values. Otherwise it is one table.

    Attributes:
        rows: those so far, text by name of the column.
        left_out: how many were not measured for want of time.

    Raises:
        InputError: if there is a file and ``resume`` is not set, or it is another one.
    """

    def __init__(
        self,
        path: Path,
        keys: Sequence[str],
        figures: Sequence[str],
        resume: bool,
        end: float = float("inf"),
        patience: float = 120.0,
        heading: str = "",
        by: str | None = None,
    ):
        self.path, self.keys, self.columns = Path(path), list(keys), [*keys, *figures, "note"]
        self.rows: list[dict[str, str]] = []
        self.left_out = 0
        self._end, self._patience, self._heading, self._by = end, patience, heading, by
        if self.path.exists():
            if not resume:
                raise InputError(f"{self.path} is there already; say --resume, or another --out")
            with open(self.path, newline="") as file:
                reader = csv.DictReader(file)
                if reader.fieldnames != self.columns:
                    raise InputError(f"{self.path}: not a table of this benchmark, whose columns are {self.columns}")
                self.rows = list(reader)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def measure(self, call: Callable[[], Mapping[str, Cell]], again: bool = False, **keys: Cell) -> None:
        """A row, unless it is there already or the time is over; one that fails says so and is tried again next time.

        Args:
            call: measures; its figures may be fewer than the columns.
            again: even if it is there already.
            keys: of the row.
        """
        key = {name: _said(keys[name]) for name in self.keys}
        if not again and any(self._is(row, key) and not row["note"].startswith(FAILED) for row in self.rows):
            return
        now = time.monotonic()
        if now > self._end:
            self.left_out += 1
            return
        late = self._end + 10 - now  # measuring in vain is worse than a few seconds
        try:
            with _at_most(min(self._patience, late)):
                found = {name: _said(value) for name, value in call().items()}
        except _TooLong:
            if late < self._patience:
                self.left_out += 1
                return
            found = {"note": f"not done in {self._patience:g} seconds"}
        except Exception as error:  # out of memory, what cannot be recorded or compiled: the rest is still measured
            found = {"note": f"{FAILED}, {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        finally:
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        row = dict.fromkeys(self.columns, "") | key | found
        places = [place for place, old in enumerate(self.rows) if self._is(old, key)] or [len(self.rows)]
        self.rows[places[0] : places[0] + 1] = [row]
        self._write()
        shown = [*filter(None, key.values()), *(f"{name} {value}" for name, value in found.items() if value)]
        print("  ".join(shown), flush=True)

    @staticmethod
    def _is(row: Mapping[str, str], key: Mapping[str, str]) -> bool:
        return all(row[name] == value for name, value in key.items())

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, text.getvalue().encode())
        write_whole(self.path.with_suffix(".md"), self._in_markdown().encode())

    def _in_markdown(self) -> str:
        parts = [self._heading] if self._heading else []
        for value in dict.fromkeys(row[self._by] if self._by else "" for row in self.rows):
            rows = [row for row in self.rows if not self._by or row[self._by] == value]
            names = [name for name in self.columns if name != self._by and any(row[name] for row in rows)]
            lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
            title = f"## {value}\n\n" if self._by else ""
            cells = ([cell.replace("|", "/") for cell in line] for line in lines)
            parts.append(title + "\n".join(f"| {' | '.join(line)} |" for line in cells))
        return "\n\n".join(parts) + "\n"


def end_after(minutes: float) -> float:
    """So many minutes from now, on the monotonic clock."""
    return time.monotonic() + 60 * minutes


def seconds_of(
    call: Callable[[], object],
    device: torch.device | str,
    repeats: int = 30,
    warm_up: int = 2,
    budget: float = float("inf"),
) -> float:
    """The least seconds of several calls, the device idle before and after each.

    Args:
        call: what is timed.
        device: where it works.
        repeats: calls at most.
        warm_up: calls before them.
        budget: seconds after which there are no more, but for the first.
    """
    for _ in range(warm_up):
        call()
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) < budget):
        synchronize(device)
        start = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def peak_bytes(call: Callable[[], object], device: torch.device | str, before: int = 0) -> int | None:
    """The most memory that tensors took on a GPU during a call, beyond ``before``; nothing is known of a CPU."""
    if torch.device(device).type != "cuda":
        return None
    gc.collect()
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def allocated(device: torch.device | str) -> int:
    """Bytes that tensors take on a GPU; 0 for a CPU."""
    gc.collect()
    return torch.cuda.memory_allocated(device) if torch.device(device).type == "cuda" else 0


def matmul_seconds(device: torch.device | str, dtype: torch.dtype, size: int, repeats: int = 30) -> float:
    """The time of a product of large random matrices, 2 size^3 operations."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return seconds_of(lambda: a @ b, device, repeats, 5)


def compile_for_one_shape() -> None:
    """Have ``torch.compile`` make code for each shape it meets, in all layers, rather than for any shape."""
    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.recompile_limit = 64  # beyond it code would run eagerly, in silence


def synchronize(device: torch.device | str) -> None:
    """Wait for the device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


class _TooLong(BaseException):
    """No ``Exception``: compilers catch those and go on."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def handler(signum: int, frame: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _said(value: Cell | None) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "" if value is None else str(value)
