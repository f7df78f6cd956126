"""Which files are used, which are skipped, and that what is read is what was written."""

import logging
import os
import struct

import numpy as np
import pytest
import soundfile
import torch

from waveflow.data import Clip, Recordings, find_clips
from waveflow.errors import InputError

RATE = 22050


def tone(seconds=1.0, rate=RATE, frequency=220.0):
    time = np.arange(round(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * frequency * time)


def pcm16(samples):
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def read(folder, **options):
    return Recordings(find_clips(folder), RATE, progress=False, **options)


@pytest.fixture
def bad_folder(tmp_path):
    """Two good clips among one of every kind of bad one."""
    soundfile.write(tmp_path / "good-1.wav", tone(), RATE)
    soundfile.write(tmp_path / "good-2.flac", tone(), RATE)
    (tmp_path / "bytes.flac").write_bytes(os.urandom(5000))
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "no-samples.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "below-a-step.wav", 1e-6 * tone(), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "nan.wav", np.where(np.arange(RATE) == 7, np.nan, tone()), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "infinite.wav", np.where(np.arange(RATE) == 7, np.inf, tone()), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "integers.wav", 32768 * tone(), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", tone(0.3), RATE)
    whole = (tmp_path / "good-2.flac").read_bytes()
    (tmp_path / "truncated.flac").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def test_every_bad_file_is_skipped_with_its_reason(bad_folder, caplog):
    with caplog.at_level(logging.WARNING, logger="waveflow"):
        recordings = read(bad_folder, min_samples=8000)
    assert [clip.name for clip in recordings.clips] == ["good-1", "good-2"]
    reasons = dict(recordings.skipped)
    assert set(reasons) == {path.stem for path in bad_folder.iterdir()} - {"good-1", "good-2"}
    for name, word in {
        "empty": "empty",
        "no-samples": "no samples",
        "silent": "silent",
        "below-a-step": "silent",
        "nan": "NaN",
        "infinite": "infinite",
        "integers": "32768",
        "short": "too short, 6615 samples where at least 8000",
    }.items():
        assert word in reasons[name]
    assert not any(str(bad_folder) in reason or "\n" in reason for reason in reasons.values())
    messages = [record.getMessage() for record in caplog.records]
    assert messages[:-1] == [f"skipped {name}: {reason}" for name, reason in recordings.skipped]
    assert messages[-1] == "skipped 10 of 12 clips, 2 left"


def test_a_listed_file_that_is_missing_is_skipped(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    (tmp_path / "metadata.csv").write_text("a|A\nb|B\n")
    recordings = read(tmp_path)
    assert [clip.name for clip in recordings.clips] == ["a"]
    assert recordings.skipped[0].name == "b"
    assert "No such file" in recordings.skipped[0].reason


def test_nothing_left_is_an_error_that_names_an_example(tmp_path, caplog):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(InputError, match=r"no clip is left of 1; the first: silent: .*silent"):
        read(tmp_path)
    assert "skipped silent: " in caplog.text
    with pytest.raises(InputError, match="no clip is left of 0"):
        Recordings([], RATE)


def test_a_header_that_announces_more_than_memory_is_skipped(tmp_path):
    soundfile.write(tmp_path / "good.wav", tone(), RATE)
    soundfile.write(tmp_path / "liar.flac", tone(), RATE)
    data = bytearray((tmp_path / "liar.flac").read_bytes())
    packed = struct.unpack(">Q", data[18:26])[0]  # STREAMINFO: rate 20, channels 3, bits 5, samples 36
    data[18:26] = struct.pack(">Q", packed | (2**36 - 1))
    (tmp_path / "liar.flac").write_bytes(data)
    recordings = read(tmp_path)
    assert [clip.name for clip in recordings.clips] == ["good"]


@pytest.mark.parametrize("cache_bytes", [0, 60_000, 2**31])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_samples_are_those_of_the_file_cached_or_not(tmp_path, cache_bytes, suffix):
    signals = [pcm16(tone(frequency=f)) for f in (110, 220, 330)]
    for i, signal in enumerate(signals):
        soundfile.write(tmp_path / f"{i}{suffix}", signal, RATE)
    recordings = read(tmp_path, cache_bytes=cache_bytes)
    assert recordings.lengths == [RATE] * 3
    for i, signal in enumerate(signals):
        expected = torch.from_numpy(signal / 32768).float()
        assert torch.equal(recordings.waveform(i), expected)
        assert torch.equal(recordings.waveform(i, 1000, 2500), expected[1000:2500])


@pytest.mark.parametrize(
    ("suffix", "subtype"), [(".wav", "FLOAT"), (".wav", "PCM_24"), (".ogg", "VORBIS"), (".mp3", None)]
)
@pytest.mark.parametrize("rate", [RATE, 44100])
def test_parts_read_again_equal_parts_kept(tmp_path, suffix, subtype, rate):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / f"a{suffix}", 0.1 * rng.standard_normal((rate, 2)), rate, subtype=subtype)
    kept, again = read(tmp_path), read(tmp_path, cache_bytes=0)
    assert kept.lengths == again.lengths
    assert torch.equal(kept.waveform(0, 5000, 9000), again.waveform(0, 5000, 9000))
    assert torch.equal(kept.waveform(0), again.waveform(0))


def test_samples_lie_on_the_16_bit_grid(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(rate=48000), 48000, subtype="FLOAT")
    steps = read(tmp_path).waveform(0) * 32768
    assert torch.equal(steps, steps.round())


def test_other_rates_and_channels_are_converted_with_one_warning(tmp_path, caplog):
    for i, rate in enumerate((44100, 48000, 22050, 16000)):
        soundfile.write(tmp_path / f"{i}.wav", np.stack([tone(rate=rate), 0 * tone(rate=rate)], 1), rate)
    with caplog.at_level(logging.INFO, logger="waveflow"):
        recordings = read(tmp_path)
    assert [r.getMessage() for r in caplog.records] == ["3 of 4 clips resampled to 22050 Hz, 4 averaged to one channel"]
    for i in range(4):
        waveform = recordings.waveform(i).numpy()
        assert abs(len(waveform) - RATE) <= 1
        inner = slice(500, RATE - 500)
        assert np.abs(waveform[inner] - tone()[inner] / 2).max() < 2e-3


def test_a_file_that_vanished_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    recordings = read(tmp_path, cache_bytes=0)
    (tmp_path / "a.wav").unlink()
    with pytest.raises(InputError, match=r"a\.wav"):
        recordings.waveform(0, 0, 100)


def test_order_of_the_clips_is_kept_over_many_threads(tmp_path):
    clips = []
    for i in range(70):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, pcm16(tone(0.02 + 0.01 * (i % 7))), RATE)
        clips.append(Clip(f"clip {i}", path))
    recordings = Recordings(clips[::-1], RATE, progress=False)
    assert recordings.clips == clips[::-1]
    assert recordings.lengths == [soundfile.info(clip.path).frames for clip in clips[::-1]]
