"""What is inside a checkpoint file of PyTorch, NeMo or safetensors, read without executing any of it."""

import errno
import io
import os
import shutil
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import safetensors.torch
import torch
import yaml
from torch import Tensor

from waveflow.errors import InputError
from waveflow.models.waveglow.inert_pickle import InertUnpickler, Storage, StoredTensor

_ZIP, _GZIP, _PICKLE = b"PK", b"\x1f\x8b", b"\x80"
_TAR, _TAR_AT = b"ustar", 257
_LEGACY_MAGIC, _LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MAX_YAML, _MAX_HEADER = 1 << 20, 100_000_000

_Fetch = Callable[[Storage], Tensor]


def printable(text: Any, length: int = 60) -> str:
    """The beginning of what a file says, safe to be printed in one line."""
    return "".join(char if char.isprintable() else " " for char in str(text)[:length])


def first_few(names: Iterable[Any]) -> str:
    """A few of many names in a file, for a message."""
    names = list(names)
    few = ", ".join(printable(name) for name in names[:4]) or "nothing"
    return few + (f" and {len(names) - 4} more" if len(names) > 4 else "")


@dataclass(frozen=True)
class CheckpointFile:
    """An open checkpoint.

    Args:
        path: where it came from, for messages.
        content: what was saved: dicts, lists, numbers, tensors that are still in the file
            (:class:`~waveflow.models.waveglow.inert_pickle.StoredTensor`) or not (safetensors), and a
            :class:`~waveflow.models.waveglow.inert_pickle.Shell` for everything else.
        settings: the model's configuration beside the weights in a .nemo file, else empty.
        fetch: from a storage to its numbers.
    """

    path: str
    content: Any
    settings: dict[str, Any]
    fetch: _Fetch

    def read(self, tensor: StoredTensor | Tensor) -> Tensor:
        """The numbers of a tensor of ``content``; shares memory with other tensors of the same storage.

        Raises:
            InputError: if the file ends before them.
        """
        if isinstance(tensor, Tensor):
            return tensor
        with _one_line(self.path):
            return torch.as_strided(self.fetch(tensor.storage), tensor.size, tensor.stride, tensor.offset)


@contextmanager
def open_checkpoint(path: str | os.PathLike) -> Iterator[CheckpointFile]:
    """Open a checkpoint: PyTorch's zip and legacy (before 1.6) files, NeMo's tars, plain or gzipped, and safetensors.

    Pickles are read by :class:`~waveflow.models.waveglow.inert_pickle.InertUnpickler`. Nothing is unpacked under a
    name that the file chose.

    Raises:
        InputError: if the file is empty, truncated, damaged, or none of these.
        OSError: if it is not there or cannot be read.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise InputError(f"{path}: expected a checkpoint file, got a folder")
    with ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        with _one_line(path):
            content, settings, fetch = _read(path, file, stack)
        yield CheckpointFile(path, content, settings, _cached(fetch))


def _read(path: str, file: BinaryIO, stack: ExitStack) -> tuple[Any, dict[str, Any], _Fetch]:
    head = file.read(_TAR_AT + len(_TAR))
    file.seek(0)
    if not head:
        raise InputError(f"{path}: is empty")
    # First, for the length of its header can begin like any of the others.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MAX_HEADER:
        return safetensors.torch.load_file(path), {}, _nothing
    if head[_TAR_AT:] == _TAR or head.startswith(_GZIP):
        return _read_nemo(path, file, head.startswith(_GZIP), stack)
    if head.startswith((_ZIP, _PICKLE)):
        return _read_torch(path, file, stack)
    raise InputError(f"{path}: expected a PyTorch, NeMo or safetensors file, got one that begins with {head[:8]!r}")


def _read_nemo(path: str, file: BinaryIO, gzipped: bool, stack: ExitStack) -> tuple[Any, dict[str, Any], _Fetch]:
    tar = stack.enter_context(tarfile.open(fileobj=file, mode="r:gz" if gzipped else "r:"))  # noqa: SIM115
    members = {member.name: member for member in tar if member.isreg()}
    weights = [name for name in members if name.endswith(".ckpt")]
    if len(weights) != 1:
        raise InputError(f"{path}: expected a NeMo archive with one .ckpt file, got {first_few(members)}")
    settings = {}
    for name in members:
        if name.endswith((".yaml", ".yml")):
            text = tar.extractfile(members[name]).read(_MAX_YAML)
            settings = yaml.safe_load(text)
    inner = tar.extractfile(members[weights[0]])
    if gzipped:  # going back and forth in a gzipped file would unpack it anew each time
        unpacked = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(inner, unpacked)
        unpacked.seek(0)
        inner = unpacked
    content, _, fetch = _read_torch(path, inner, stack)
    return content, settings if isinstance(settings, dict) else {}, fetch


def _read_torch(path: str, file: BinaryIO, stack: ExitStack) -> tuple[Any, dict[str, Any], _Fetch]:
    is_zip = file.read(len(_ZIP)) == _ZIP
    file.seek(0)
    content, fetch = _read_zip(path, file, stack) if is_zip else _read_legacy(path, file)
    return content, {}, fetch


def _read_zip(path: str, file: BinaryIO, stack: ExitStack) -> tuple[Any, _Fetch]:
    archive = stack.enter_context(zipfile.ZipFile(file))
    names = archive.namelist()
    folders = [name.removesuffix("data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise InputError(f"{path}: expected a zip file that PyTorch wrote, with a data.pkl, got {first_few(names)}")
    folder = folders[0]
    if f"{folder}byteorder" in names and _stored(archive, f"{folder}byteorder") != b"little":
        raise InputError(f"{path}: expected little-endian numbers, got big-endian ones")
    content = InertUnpickler(io.BytesIO(_stored(archive, f"{folder}data.pkl"))).load()

    def fetch(storage: Storage) -> Tensor:
        return _numbers(_stored(archive, f"{folder}data/{storage.key}"), storage)

    return content, fetch


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which PyTorch never does")
    return archive.read(info)


def _read_legacy(path: str, file: BinaryIO) -> tuple[Any, _Fetch]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if InertUnpickler(file).load() != _LEGACY_MAGIC or InertUnpickler(file).load() != _LEGACY_PROTOCOL:
        raise InputError(f"{path}: expected a pickle that PyTorch wrote, got another")
    InertUnpickler(file).load()  # sizes of C types on the machine that wrote it
    unpickler = InertUnpickler(file)
    content = unpickler.load()
    starts = {}
    for key in InertUnpickler(file).load():
        storage = unpickler.storages[key]
        (numel,) = struct.unpack("<q", file.read(8))
        starts[key] = file.tell()
        end = starts[key] + numel * storage.dtype.itemsize
        if numel != storage.numel or end > size:
            raise EOFError("it ends before its numbers do")
        file.seek(end)

    def fetch(storage: Storage) -> Tensor:
        file.seek(starts[storage.key])
        return _numbers(file.read(storage.numel * storage.dtype.itemsize), storage)

    return content, fetch


def _numbers(data: bytes, storage: Storage) -> Tensor:
    if len(data) != storage.numel * storage.dtype.itemsize:
        raise EOFError(f"{len(data)} bytes where {storage.numel} numbers of {storage.dtype} were expected")
    if not data:
        return torch.empty(0, dtype=storage.dtype)
    return torch.frombuffer(bytearray(data), dtype=storage.dtype)


def _cached(fetch: _Fetch) -> _Fetch:
    known: dict[str, Tensor] = {}

    def cached(storage: Storage) -> Tensor:
        if storage.key not in known:
            known[storage.key] = fetch(storage)
        return known[storage.key]

    return cached


def _nothing(storage: Storage) -> Tensor:
    raise LookupError(storage.key)


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Whatever a damaged or malicious file raises, as one line; what the disk raises as it is."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Without a number, or with a position that cannot be: what a decoder says of damaged content.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, errno.EOVERFLOW):
            raise
        reason = printable(error, 200) or type(error).__name__
        raise InputError(f"{path}: truncated or damaged ({reason})") from None
