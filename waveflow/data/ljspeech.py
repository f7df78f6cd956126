"""LJ Speech 1.1 (Ito & Johnson, 2017): fetched, checked and unpacked."""

from pathlib import Path

from waveflow.data.download import checksum, fetch, unpack
from waveflow.errors import InputError

URL = "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2"
SHA256 = "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5"


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
    fetch(url, archive, "LJ Speech", progress)
    found = checksum(archive, "sha256", progress)
    if found != sha256:
        archive.unlink()
        raise InputError(f"{url}: expected SHA-256 {sha256}, got {found}; the download was removed, try again")
    unpack(archive, target, progress)
    archive.unlink()
    return target
