"""LJ Speech 1.1 (Ito & Johnson, 2017): fetched, checked and unpacked."""

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

URL = "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2"
SHA256 = "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5"
_BLOCK = 1 << 20


def download_ljspeech(folder: str | Path, url: str = URL, sha256: str = SHA256, progress: bool = True) -> Path:
    """Put LJ Speech into ``folder/LJSpeech-1.1`` (2.6 GB to fetch, 3.8 GB unpacked); return that folder.

    What is there already is left alone. An interrupted download is kept as ``*.part`` and continued by the next call;
    the archive is unpacked only when its checksum is right, into a temporary folder that gets its name when whole.
    For one process: under ``torchrun``, let rank 0 call it and the others wait.

    Raises:
        InputError: without a network, when the connection breaks, or for a wrong checksum.
        OSError: if ``folder`` cannot be written or is full.
    """
    folder = Path(folder)
    target = folder / "LJSpeech-1.1"
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "LJSpeech-1.1.tar.bz2.part"
    _fetch(url, archive, progress)
    found = _sha256(archive, progress)
    if found != sha256:
        archive.unlink()
        raise InputError(f"{url}: expected SHA-256 {sha256}, got {found}; the download was removed, try again")
    _unpack(archive, target, progress)
    archive.unlink()
    return target


def _fetch(url: str, part: Path, progress: bool) -> None:
    """Append what is missing of `url` to `part`."""
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
                tqdm(
                    desc="LJ Speech", total=total, initial=have, unit="B", unit_scale=True, disable=not progress
                ) as bar,
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


def _interrupted(url: str, part: Path, reason: object) -> InputError:
    kept = f"; {part} is kept, run again to continue" if part.exists() else " (is there a network?)"
    return InputError(f"cannot download {url}: {reason}{kept}")


def _sha256(path: Path, progress: bool) -> str:
    digest = hashlib.sha256()
    size = path.stat().st_size
    with (
        open(path, "rb") as file,
        tqdm(desc="checksum", total=size, unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        while block := file.read(_BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _unpack(archive: Path, target: Path, progress: bool) -> None:
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
