"""Finding the clips of a data set: an LJ Speech folder, or any folder of audio files."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from waveflow.audio import AUDIO_SUFFIXES
from waveflow.errors import InputError

logger = logging.getLogger("waveflow")


@dataclass(frozen=True)
class Clip:
    """One recording of a data set: not yet read, perhaps not even there.

    Args:
        name: unique in its data set; may contain ``/`` where the folder is nested.
        path: the audio file.
        text: what is said, normalised where the data set says how; None where unknown.
    """

    name: str
    path: Path
    text: str | None = None


def find_clips(folder: str | Path) -> list[Clip]:
    """List the clips of a folder without opening them.

    With a ``metadata.csv`` inside, the folder is read as LJ Speech (Ito & Johnson, 2017): lines ``id|text|normalised
    text``, the audio in ``wavs/`` or beside the csv, clips in the order of the lines. A line whose file is missing
    still gives a clip, so that a split by lines does not shift; reading it later skips it by name. Without one, every
    audio file below the folder is a clip, named by its path inside the folder, in sorted order; folders inside that
    cannot be read are skipped with a warning.

    Raises:
        InputError: if the folder is missing, is not a folder or holds no audio, or if a
            line of the csv is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"expected a folder of audio at {folder}, got {'a file' if folder.exists() else 'nothing there'}"
        )
    metadata = folder / "metadata.csv"
    return _listed_clips(metadata) if metadata.is_file() else _all_clips(folder)


def split_clips(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Split into (training, held-out): the last 20 clips are held out, the last tenth (at least 1) of fewer than 100.

    Raises:
        InputError: for fewer than two clips.
    """
    if len(clips) < 2:
        raise InputError(f"expected at least 2 clips, to train on one and hold out the other, got {len(clips)}")
    held_out = 20 if len(clips) >= 100 else max(1, len(clips) // 10)
    return list(clips[:-held_out]), list(clips[-held_out:])


def _listed_clips(metadata: Path) -> list[Clip]:
    try:
        lines = metadata.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8 text in {metadata}, got byte {error.object[error.start]:#x}") from None
    folder = metadata.parent
    files = _audio_by_stem(folder) | _audio_by_stem(folder / "wavs")
    clips: dict[str, Clip] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, *texts = (field.strip() for field in line.split("|"))
        if not name or not texts:
            raise InputError(f"line {number} of {metadata}: expected id|text|normalised text, got {line[:60]!r}")
        if name in clips:
            raise InputError(f"line {number} of {metadata}: the id {name!r} came before")
        text = next((text for text in reversed(texts[:2]) if text), None)
        clips[name] = Clip(name, files.get(name, folder / "wavs" / f"{name}.wav"), text)
    if not clips:
        raise InputError(f"{metadata} is empty: expected lines of id|text|normalised text")
    if not files.keys() & clips.keys():
        raise InputError(
            f"{metadata} lists {len(clips)} clips, but none of them is in {folder / 'wavs'} or beside it "
            f"(expected for instance {next(iter(clips))}.wav or .flac)"
        )
    return list(clips.values())


def _audio_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir(), reverse=True) if _is_audio(path.name)}


def _all_clips(folder: Path) -> list[Clip]:
    unread: list[OSError] = []
    walk = os.walk(folder, onerror=unread.append)
    paths = sorted(Path(parent, name) for parent, _, names in walk for name in names if _is_audio(name))
    if not paths:
        also = f"; not readable: {unread[0].filename} ({unread[0].strerror})" if unread else ""
        raise InputError(
            f"no audio file in {folder}: expected {', '.join(AUDIO_SUFFIXES)}, or an LJ Speech metadata.csv{also}"
        )
    for error in unread:
        logger.warning("skipped folder %s: %s", error.filename, error.strerror)
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    if len(set(names)) < len(names):  # a.wav beside a.flac: only the whole file name tells them apart
        names = [path.relative_to(folder).as_posix() for path in paths]
    return [Clip(name, path) for name, path in zip(names, paths, strict=True)]


def _is_audio(name: str) -> bool:
    return name.lower().endswith(AUDIO_SUFFIXES) and not name.startswith(".")
