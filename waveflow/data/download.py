"""Files from the network: continued where they broke off, checked, unpacked whole or not at all."""

import hashlib
import shutil
import ssl
import tarfile
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from waveflow.errors import InputError

_BLOCK = 1 << 20


def fetch(url: str, part: Path, what: str, progress: bool = True) -> None:
    """Append what is missing of ``url`` to the file ``part``; ``what`` names it in the progress bar.

    Raises:
        InputError: without a network, or when the connection breaks; what came is kept.
        OSError: if ``part`` cannot be written.
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "waveflow"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            if getattr(answer, "status", None) != 206:  # the server sends the whole file again
                have = 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            with (
                open(part, "ab" if have else "wb") as file,
                tqdm(desc=what, total=total, initial=have, unit="B", unit_scale=True, disable=not progress) as bar,
            ):
                while block := answer.read(_BLOCK):
                    file.write(block)
                    bar.update(len(block))
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing: the checksum decides
            return
        raise InputError(f"cannot download {url}: the server says {error.code} {error.reason}") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _interrupted(url, part, getattr(error, "reason", None) or str(error) or type(error).__name__) from None
    if total is not None and part.stat().st_size < total:
        raise _interrupted(url, part, f"the connection ended at {part.stat().st_size} of {total} bytes")


def checksum(path: Path, algorithm: str = "sha256", progress: bool = True) -> str:
    """Hexadecimal digest of a file by ``algorithm`` of hashlib."""
    digest = hashlib.new(algorithm)
    size = path.stat().st_size
    with (
        open(path, "rb") as file,
        tqdm(desc="checksum", total=size, unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        while block := file.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def unpack(archive: Path, target: Path, progress: bool = True) -> None:
    """Unpack the folder ``target.name`` of a tar archive as ``target``, by way of a temporary folder beside it.

    Raises:
        InputError: for a damaged archive, one whose members would leave it, or one without that folder.
        OSError: for a full disk.
    """
    scratch = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    try:
        with tarfile.open(archive, "r:*") as tar, tqdm(desc="unpacking", unit=" files", disable=not progress) as bar:
            for member in tar:
                tar.extract(member, scratch, filter="data")
                bar.update()
        if not (scratch / target.name).is_dir():
            raise InputError(f"{archive}: expected a folder {target.name} in the archive, found none")
        (scratch / target.name).rename(target)
    except tarfile.TarError as error:
        raise InputError(f"cannot unpack {archive}: {error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _interrupted(url: str, part: Path, reason: object) -> InputError:
    kept = f"; {part} is kept, run again to continue" if part.exists() else " (is there a network?)"
    return InputError(f"cannot download {url}: {reason}{kept}")
