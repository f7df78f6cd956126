"""Audio files: exact 16 bits, every rate and channel count, and one clear line for every kind of bad file."""

import errno
import logging
import os
import struct

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from waveflow import atomic
from waveflow.audio import audio_info, from_pcm16, read_audio, resample, to_pcm16, truncation, write_audio
from waveflow.errors import InputError

RATE = 22050


def tone(samples: int = 4000, frequency: float = 440.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency / rate * np.arange(samples))).astype(np.float32)


def float_wav(path, samples: np.ndarray):
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


@given(st.integers(-32768, 32767))
def test_16_bits_survive(value):
    assert to_pcm16(from_pcm16(np.array([value], np.int16))).item() == value
    assert from_pcm16(np.array([value])).item() == value / 32768


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_every_16_bit_value_round_trips(tmp_path, suffix):
    values = np.arange(-32768, 32768).astype(np.int16)
    soundfile.write(tmp_path / f"in{suffix}", values, RATE, subtype="PCM_16")
    audio = read_audio(tmp_path / f"in{suffix}")
    assert audio.sample_rate == RATE and audio.waveform.dtype == torch.float32
    np.testing.assert_array_equal(audio.waveform.numpy(), values.astype(np.float32) / 32768)
    write_audio(tmp_path / f"out{suffix}", audio.waveform, RATE)
    np.testing.assert_array_equal(soundfile.read(tmp_path / f"out{suffix}", dtype="int16")[0], values)
    assert soundfile.info(tmp_path / f"out{suffix}").subtype == "PCM_16"


@pytest.mark.parametrize(
    "kind", [("ogg", "VORBIS"), ("wav", "FLOAT"), ("wav", "PCM_24"), ("flac", "PCM_24"), ("mp3", None)]
)
def test_other_formats_are_read(tmp_path, kind):
    suffix, subtype = kind
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(20000), RATE, subtype=subtype)
    waveform, rate = read_audio(path)
    assert rate == RATE and abs(len(waveform) - 20000) < 2500
    middle = waveform[8000:12000].numpy()
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_ogg_is_written(tmp_path):
    write_audio(tmp_path / "a.ogg", torch.from_numpy(tone(8000)), RATE)
    assert soundfile.info(tmp_path / "a.ogg").subtype == "VORBIS"
    assert np.abs(read_audio(tmp_path / "a.ogg").waveform.numpy() - tone(8000)).max() < 0.05


def test_a_decoder_may_overshoot(tmp_path):
    loud = np.sign(tone(8000, frequency=317)) * np.random.default_rng(0).uniform(0.9, 0.999, 8000)
    write_audio(tmp_path / "a.ogg", loud, RATE)
    assert np.abs(soundfile.read(tmp_path / "a.ogg")[0]).max() > 1.01
    assert read_audio(tmp_path / "a.ogg", stop=4000).waveform.abs().max() == 1


def test_an_ogg_cut_between_pages_is_truncated(tmp_path):
    content = written(tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(content[: content.rfind(b"OggS")])
    with pytest.raises(InputError, match="the end of its ogg stream is missing"):
        read_audio(tmp_path / "a.ogg")


def test_channels_are_averaged_with_a_word(tmp_path, caplog):
    left, right = tone(), tone(frequency=1000)
    write_audio(tmp_path / "a.wav", torch.from_numpy(np.stack([left, right])), RATE)
    assert soundfile.info(tmp_path / "a.wav").channels == 2
    with caplog.at_level(logging.WARNING, "waveflow"):
        waveform = read_audio(tmp_path / "a.wav").waveform
        assert "a.wav: 2 channels averaged to one" in caplog.text
        caplog.clear()
        read_audio(tmp_path / "a.wav", quiet=True)
        assert not caplog.records
    np.testing.assert_allclose(waveform.numpy(), (left + right) / 2, atol=2**-15)


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000])
def test_other_rates_are_resampled_with_a_word(tmp_path, caplog, rate):
    soundfile.write(tmp_path / "a.flac", tone(rate // 2, rate=rate), rate)
    with caplog.at_level(logging.WARNING, "waveflow"):
        waveform, got = read_audio(tmp_path / "a.flac", RATE)
    assert f"resampled from {rate} to {RATE} Hz" in caplog.text
    assert got == RATE and len(waveform) == round(rate // 2 * RATE / rate)
    expected = tone(len(waveform))
    assert np.abs(waveform.numpy() - expected)[500:-500].max() < 1e-3  # the same tone at the new rate


def test_resampling_removes_what_would_alias_and_stays_in_range():
    above = torch.from_numpy(tone(44100, frequency=15000, rate=44100))
    assert resample(above, 44100, 22050)[1000:-1000].abs().max() < 1e-4
    square = torch.sign(torch.from_numpy(tone(44100, frequency=300, rate=44100)))
    assert resample(square, 44100, 22050).abs().max() == 1


def test_parts_are_those_of_the_whole(tmp_path):
    write_audio(tmp_path / "a.flac", tone(9000), RATE)
    whole = read_audio(tmp_path / "a.flac").waveform
    for start, stop in ((0, 100), (4000, 8999), (8000, 9000)):
        assert torch.equal(read_audio(tmp_path / "a.flac", start=start, stop=stop).waveform, whole[start:stop])
    assert torch.equal(read_audio(tmp_path / "a.flac", start=8500).waveform, whole[8500:])
    for start, stop in ((0, 9001), (9000, None), (5, 5), (-1, 5)):
        with pytest.raises(InputError, match="it has 9000"):
            read_audio(tmp_path / "a.flac", start=start, stop=stop)


def test_a_part_may_be_silent(tmp_path):
    write_audio(tmp_path / "a.wav", np.concatenate([np.zeros(500, np.float32), tone()]), RATE)
    assert read_audio(tmp_path / "a.wav", stop=400).waveform.abs().max() == 0


def test_info(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.stack([tone(), tone()], 1), RATE)
    info = audio_info(tmp_path / "a.flac")
    assert (info.samples, info.sample_rate, info.channels, info.format) == (4000, RATE, 2, "FLAC PCM_16")
    assert info.seconds == 4000 / RATE


def cut(path, keep: float):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def written(path, samples=None):
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 20000) if samples is None else samples, RATE)
    return path


BAD_FILES = {
    "missing": (lambda d: d / "a.wav", "No such file"),
    "folder": (lambda d: d, "is a folder"),
    "no bytes": (lambda d: (d / "a.wav").touch() or d / "a.wav", "empty file"),
    "no audio": (lambda d: (d / "a.flac").write_text("hello, this is text") and d / "a.flac", "not a readable audio"),
    "no samples": (lambda d: written(d / "a.wav", np.zeros(0)), "has no samples"),
    "cut wav": (lambda d: cut(written(d / "a.wav"), 0.5), "truncated, 20022 bytes .* 40044"),
    "cut flac": (lambda d: cut(written(d / "a.flac"), 0.5), "truncated|cannot be decoded"),
    "cut ogg": (lambda d: cut(written(d / "a.ogg"), 0.5), "truncated, the end of its ogg stream"),
    "end cut off ogg": (lambda d: cut(written(d / "a.ogg"), 0.999), "truncated, the end of its ogg stream"),
    "cut aiff": (lambda d: cut(written(d / "a.aiff"), 0.5), "truncated, .* bytes"),
    "cut mp3": (lambda d: cut(written(d / "a.mp3"), 0.5), "truncated, .* samples where 20000"),
    "cut header": (lambda d: cut(written(d / "a.flac"), 0.0005), "not a readable audio"),
    "silent": (lambda d: written(d / "a.wav", np.zeros(2000)), "digitally silent, every sample is 0"),
    "constant": (lambda d: written(d / "a.wav", np.full(2000, 0.25)), "digitally silent, every sample is 0.25"),
    "channels cancel": (lambda d: float_wav(d / "a.wav", np.stack([tone(), -tone()], 1)), "digitally silent"),
    "NaN": (lambda d: float_wav(d / "a.wav", np.append(tone(), np.nan)), "1 samples that are NaN"),
    "infinity": (lambda d: float_wav(d / "a.wav", np.append(tone(), -np.inf)), "infinite"),
    "too loud": (lambda d: float_wav(d / "a.wav", tone(level=1.5)), "reaches 1.5.*scale it down"),
    "integers as floats": (lambda d: float_wav(d / "a.wav", tone(level=9000)), "not divided by 32768"),
    "clipped": (lambda d: written(d / "a.wav", (tone() * 4).clip(-1, 1)), "clipped, .*% of its samples"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_by_name(tmp_path, case):
    make, message = BAD_FILES[case]
    path = make(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        read_audio(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_no_permission(tmp_path, monkeypatch):
    def denied(*arguments):  # root, which tests may run as, reads everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(truncation, "open", denied, raising=False)
    with pytest.raises(InputError, match=r"a\.wav: Permission denied"):
        read_audio(written(tmp_path / "a.wav"))


def test_a_wav_written_to_a_pipe_is_read(tmp_path):
    content = bytearray(written(tmp_path / "a.wav").read_bytes())
    content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(content)
    assert len(read_audio(tmp_path / "a.wav").waveform) == 20000


def test_a_full_scale_sine_is_not_clipped(tmp_path):
    write_audio(tmp_path / "a.wav", tone(RATE, level=1.0), RATE)
    read_audio(tmp_path / "a.wav")


def test_what_is_beyond_full_scale_is_clipped_and_counted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "waveflow"):
        write_audio(tmp_path / "a.wav", torch.tensor([0.0, 1.0, -1.0, 1.5, -2.0, 0.25]), RATE)
    assert "2 of 6 samples beyond [-1, 1] clipped, peak 2" in caplog.text
    samples = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    assert samples.tolist() == [0, 32767, -32768, 32767, -32768, 8192]


@pytest.mark.parametrize(
    ("name", "waveform", "rate", "message"),
    [
        ("a.txt", torch.zeros(5), RATE, r"cannot write .txt, only .wav, .flac, .ogg"),
        ("a", torch.zeros(5), RATE, "without suffix"),
        ("a.wav", torch.zeros(0), RATE, r"shape \(0,\)"),
        ("a.wav", torch.zeros(1, 1, 5), RATE, r"\(1, 1, 5\)"),
        ("a.wav", np.zeros(5, np.int16), RATE, "got int16"),
        ("a.wav", torch.tensor([0.0, float("nan")]), RATE, "1 NaN or infinite"),
        ("a.flac", torch.zeros(5), 0, "does not take 0 Hz"),
    ],
)
def test_write_refuses_and_leaves_nothing(tmp_path, name, waveform, rate, message):
    with pytest.raises(InputError, match=message):
        write_audio(tmp_path / name, waveform, rate)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_an_oserror_that_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no/a.wav"):
        write_audio(tmp_path / "no" / "a.wav", torch.zeros(5), RATE)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    written(tmp_path / "a.wav")
    before = (tmp_path / "a.wav").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*a\.wav"):
        write_audio(tmp_path / "a.wav", torch.zeros(5), RATE)
    assert (tmp_path / "a.wav").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
