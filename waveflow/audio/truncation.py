"""Files cut short that libsndfile reads up to the cut without a word: wav, aiff and ogg."""

import os
from pathlib import Path

from waveflow.errors import InputError

_LARGEST_OGG_PAGE = 65307
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # what a program writes that cannot seek back, as into a pipe


def check_not_truncated(path: str | os.PathLike) -> None:
    """Refuse a wav or aiff file shorter than its header announces, and an ogg file without its last page.

    Raises:
        InputError: naming the file.
        OSError: if it cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] in (b"RIFF", b"FORM") and len(head) == 12:
            announced = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
            if announced not in _UNKNOWN_SIZES and announced + 8 > size + 1:  # some forget the padding byte
                raise InputError(f"{path}: truncated, {size} bytes where its header announces {announced + 8}")
        elif head[:4] == b"OggS":
            file.seek(max(0, size - _LARGEST_OGG_PAGE))
            if not _is_last_page(file.read()):
                raise InputError(f"{path}: truncated, the end of its ogg stream is missing")


def _is_last_page(tail: bytes) -> bool:
    """Whether the last page is whole and marked as the end of a stream (RFC 3533, section 6)."""
    page = tail[tail.rfind(b"OggS") :]
    if not page.startswith(b"OggS") or len(page) < 27:
        return False
    segments = page[26]
    return bool(page[5] & 4) and len(page) >= 27 + segments + sum(page[27 : 27 + segments])
