"""The clips that ship with the project."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

SPEECH = Path(__file__).parents[2] / "samples" / "speech"
ROWS = [line.split("|") for line in (SPEECH / "metadata.csv").read_text("utf-8").splitlines()]


def test_every_row_has_a_clip_and_every_clip_a_row():
    assert sorted(row[0] for row in ROWS) == sorted(path.stem for path in SPEECH.glob("*.flac"))
    assert all(len(row) == 3 and row[1] and row[2] for row in ROWS)


def test_the_folder_stays_small():
    assert sum(path.stat().st_size for path in SPEECH.iterdir()) <= 3_000_000


@pytest.mark.parametrize("name", [row[0] for row in ROWS])
def test_clip_is_like_lj_speech(name):
    path = SPEECH / f"{name}.flac"
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (22050, 1, "PCM_16")
    samples, _ = soundfile.read(path)
    assert 1.4 < len(samples) / 22050 < 8
    assert 0.3 < np.abs(samples).max() < 0.95
    assert 0.05 < samples.std() < 0.1
    assert abs(samples.mean()) < 1e-4
    quietest = samples[: len(samples) // 512 * 512].reshape(-1, 512).std(1).min()
    assert 10 ** (-70 / 20) < quietest < 10 ** (-60 / 20)
