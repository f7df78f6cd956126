"""Training runs as a few files of limited size, to be carried from one machine to the next."""

import io
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from waveflow.atomic import write_whole
from waveflow.errors import InputError
from waveflow.training.packed_state import pack_state, unpack_state
from waveflow.training.run_folder import RunFolder

_NAME, _STATE = "runs.tar", "packed"


def pack(runs: Sequence[Path], out: Path, part_bytes: int, total_bytes: int) -> list[str]:
    """Write the runs, siblings, as ``out/runs.tar.00``, ``.01``, ...: what was there before is replaced.

    Figures and pictures come first, then the best models, then what training goes on from, each time the smaller ones
    first: what no longer fits is left out. A run without its state cannot be resumed.

    Args:
        runs: folders of runs.
        out: where to.
        part_bytes: of a file, at most.
        total_bytes: of all files together, at most.

    Returns:
        What was left out.

    Raises:
        OSError: if a file cannot be read or written.
    """
    content = io.BytesIO()
    try:
        for run in runs:
            if any((run / "checkpoints").glob("step-*.safetensors")):
                pack_state(RunFolder(run), run / _STATE, part_bytes)
        left_out = _fill(content, runs, total_bytes)
    finally:
        for run in runs:
            shutil.rmtree(run / _STATE, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    data = content.getvalue()
    parts = [data[i : i + part_bytes] for i in range(0, len(data), part_bytes)]
    for place, part in enumerate(parts):
        write_whole(out / f"{_NAME}.{place:02}", part)
    for old in _parts(out)[len(parts) :]:
        old.unlink()
    return left_out


def unpack(source: Path, target: Path) -> None:
    """Lay out what :func:`pack` wrote, in a folder that has none of these runs yet.

    Raises:
        InputError: if there are no parts, one is missing, or they are damaged; if a run is there already.
        OSError: if a file cannot be read or written.
    """
    parts = _parts(source)
    if not parts or [path.name for path in parts] != [f"{_NAME}.{i:02}" for i in range(len(parts))]:
        raise InputError(f"{source}: expected {_NAME}.00 and what follows, found {len(parts)} parts of it")
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(path.read_bytes() for path in parts))) as archive:
            archive.extractall(target, filter="data")
    except tarfile.TarError as error:
        raise InputError(f"{source}: the parts of {_NAME} are damaged ({error})") from None
    for state in sorted(target.glob(f"*/{_STATE}")):
        unpack_state(state, RunFolder(state.parent))
        shutil.rmtree(state)


def _fill(content: io.BytesIO, runs: Sequence[Path], total_bytes: int) -> list[str]:
    left_out = []
    with tarfile.open(fileobj=content, mode="w") as archive:
        for kind in (_light, _best, _state):
            for files in sorted(filter(None, (list(kind(run)) for run in runs)), key=_size):
                names = [path.relative_to(runs[0].parent).as_posix() for path in files]
                if content.tell() + _size(files) + tarfile.RECORDSIZE > total_bytes:
                    left_out += names
                    continue
                for path, name in zip(files, names, strict=True):
                    archive.add(path, name)
    return left_out


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_NAME}.[0-9][0-9]"))


def _light(run: Path) -> Iterator[Path]:
    yield from sorted(path for path in (run / "logs").glob("*") if "tfevents" not in path.name)
    yield from sorted(path for path in (run / "samples").glob("*.png") if not path.name.startswith("step-"))
    yield from sorted((run / "samples").glob("step-*.png"))[-1:]
    yield from sorted(run.glob("*.json"))
    yield from run.parent.glob(f"{run.name}.log")


def _best(run: Path) -> Iterator[Path]:
    yield from sorted((run / "best").glob("*.*"))


def _state(run: Path) -> Iterator[Path]:
    yield from sorted((run / _STATE).glob("*"))


def _size(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size + 2048 for path in files)
