"""Segments and whole clips: waveforms, mels that fit them, and noise that follows from (seed, epoch, index)."""

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from waveflow.audio import MelConfig, MelSpectrogram
from waveflow.data import LSB, Batches, Clip, SpeechSegments, WholeClips, find_clips
from waveflow.errors import InputError

SAMPLES = Path(__file__).parents[2] / "samples" / "speech"
LJ_SPEECH = Path(__file__).parents[3] / "shared" / "data" / "ljspeech"
TACOTRON2 = MelConfig.from_preset("tacotron2")
ODD = MelConfig(n_fft=600, hop_length=150, win_length=500, n_mels=40)


def noise_clip(path, length, seed=0, rate=22050):
    samples = np.random.default_rng(seed).integers(-8000, 8000, length).astype(np.int16)
    soundfile.write(path, samples, rate)
    return Clip(path.stem, path), torch.from_numpy(samples / 32768).float()


def starts(item, samples, hop):
    """The hops at which the clip is within half a step of the segment."""
    segment = item["waveform"]
    last = (len(samples) - len(segment)) // hop
    distance = [(samples[k * hop :][: len(segment)] - segment).abs().max() for k in range(last + 1)]
    return [k for k, far in enumerate(distance) if far <= 0.501 * LSB]


@pytest.mark.parametrize(
    "config", [TACOTRON2, MelConfig.from_preset("hifigan-22k"), ODD], ids=["centre", "same", "odd"]
)
@pytest.mark.parametrize("segment", [16000, 4096, 256, 100])
@pytest.mark.parametrize("cache_bytes", [0, 2**31])
def test_the_mel_is_that_of_the_whole_clip_cut_to_the_segment(tmp_path, config, segment, cache_bytes):
    clip, samples = noise_clip(tmp_path / "a.wav", 20011)
    whole = MelSpectrogram(config)(samples[None])[0]
    segments = SpeechSegments([clip], config, segment, cache_bytes=cache_bytes, progress=False)
    frames = -(-segment // config.hop_length)
    seen = set()
    for epoch in range(40):
        item = segments.item(epoch, 0)
        assert item["waveform"].shape == (segment,)
        assert item["mel"].shape == (config.n_mels, frames)
        hops = starts(item, samples, config.hop_length)
        assert len(hops) == 1
        torch.testing.assert_close(item["mel"], whole[:, hops[0] : hops[0] + frames], rtol=0, atol=1e-4)
        seen.add(hops[0])
    assert len(seen) > (8 if segment == 16000 else 20)


@pytest.mark.parametrize("config", [TACOTRON2, MelConfig.from_preset("hifigan-22k")], ids=["centre", "same"])
@pytest.mark.parametrize("segment", [1024, 1100])
def test_starts_reach_from_the_first_hop_to_the_last_that_fits(tmp_path, config, segment):
    clip, samples = noise_clip(tmp_path / "a.wav", 1024 + 3 * 256 + 100)
    segments = SpeechSegments([clip], config, segment, progress=False)
    seen = set()
    for epoch in range(80):
        seen |= set(starts(segments.item(epoch, 0), samples, 256))
    frames = -(-segment // 256)
    fits = {k for k in range(8) if k * 256 + segment <= len(samples) and k + frames <= config.frames(len(samples))}
    assert seen == fits
    assert 0 in fits


def test_the_noise_is_uniform_over_one_step_and_centred(tmp_path):
    clip, samples = noise_clip(tmp_path / "a.wav", 16000)
    segments = SpeechSegments([clip], TACOTRON2, progress=False)
    items = [segments.item(epoch, 0)["waveform"] for epoch in range(8)]
    assert all(item.dtype == torch.float32 for item in items)
    noise = torch.cat([item.double() - samples for item in items]) / LSB
    assert noise.abs().max() <= 0.501
    assert noise.mean().abs() < 4 * 12**-0.5 / len(noise) ** 0.5
    counts = torch.histc(noise, 20, -0.5, 0.5)
    chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert chi2 < 60  # 19 degrees of freedom


def test_items_follow_from_seed_epoch_and_index_alone():
    clips = find_clips(SAMPLES)[:4]
    one, two = (SpeechSegments(clips, TACOTRON2, 8000, seed=3, progress=False) for _ in range(2))
    places = [(e, i) for e in range(3) for i in range(4)]
    forward = {place: one.item(*place) for place in places}
    torch.rand(3), np.random.rand(3)
    for place in reversed(places):
        item = two.item(*place)
        assert torch.equal(item["waveform"], forward[place]["waveform"])
        assert torch.equal(item["mel"], forward[place]["mel"])
        assert item["name"] == forward[place]["name"] == clips[place[1]].name
    other = SpeechSegments(clips, TACOTRON2, 8000, seed=4, progress=False)
    waveforms = [item["waveform"] for item in forward.values()] + [other.item(*place)["waveform"] for place in places]
    assert all(not torch.equal(a, b) for i, a in enumerate(waveforms) for b in waveforms[:i])


def test_global_random_state_is_left_alone():
    segments = SpeechSegments(find_clips(SAMPLES)[:2], TACOTRON2, progress=False)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    Batches(segments, 2).batch(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_clips_too_short_for_a_segment_are_skipped(tmp_path):
    enough, _ = noise_clip(tmp_path / "enough.wav", 16000)
    short, _ = noise_clip(tmp_path / "short.wav", 15999)
    segments = SpeechSegments([short, enough], TACOTRON2, 16000, progress=False)
    assert len(segments) == 1
    assert segments.skipped[0].name == "short"
    assert "at least 16000" in segments.skipped[0].reason
    same = SpeechSegments([noise_clip(tmp_path / "b.wav", 63 * 256)[0]], MelConfig.from_preset("hifigan-22k"), 16000)
    assert same.item(0, 0)["mel"].shape == (80, 63)
    with pytest.raises(InputError, match="at least 16128"):
        SpeechSegments([enough], MelConfig.from_preset("hifigan-22k"), 16000, progress=False)


@pytest.mark.parametrize(("arguments", "message"), [({"segment": 0}, "at least 1 sample"), ({"seed": -1}, "seed")])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SpeechSegments(find_clips(SAMPLES), TACOTRON2, **arguments)


@pytest.mark.parametrize("preset", ["tacotron2", "hifigan-22k"])
@pytest.mark.parametrize("length", [25 * 256, 25 * 256 + 1, 26 * 256 - 1, 600])
def test_whole_clips_are_clean_and_cut_to_whole_hops(tmp_path, preset, length):
    clip, samples = noise_clip(tmp_path / "a.wav", length)
    config = MelConfig.from_preset(preset)
    clips = WholeClips([clip], config, progress=False)
    (item,) = clips
    frames = length // 256
    assert torch.equal(item["waveform"], samples[: frames * 256])
    assert torch.equal(item["mel"], MelSpectrogram(config)(samples[None])[0, :, :frames])
    assert item["name"] == "a"
    assert len(clips) == 1


def test_a_clip_without_a_whole_frame_is_no_validation(tmp_path):
    with pytest.raises(InputError, match="too short"):
        WholeClips([noise_clip(tmp_path / "a.wav", 512)[0]], TACOTRON2, progress=False)


def test_batches_of_the_clips_that_ship():
    segments = SpeechSegments(find_clips(SAMPLES), TACOTRON2, progress=False)
    assert not segments.skipped
    batches = Batches(segments, 40, seed=1)  # more than there are clips
    batch = batches.batch(2)
    assert batch["waveform"].shape == (40, 16000)
    assert batch["mel"].shape == (40, 80, 63)
    assert len(batch["name"]) == 40
    again = Batches(segments, 40, seed=1).batch(2)
    assert torch.equal(batch["waveform"], again["waveform"])
    assert torch.equal(batch["mel"], again["mel"])


@pytest.mark.skipif(not LJ_SPEECH.is_dir(), reason="LJ Speech is not here")
def test_lj_speech():
    clips = find_clips(LJ_SPEECH)
    assert clips[0].name == "LJ001-0001"
    assert clips[0].text.startswith("Printing, in the only sense")
    segments = SpeechSegments(clips[:12], TACOTRON2, progress=False)
    assert not segments.skipped
    item = segments.item(0, 3)
    (hop,) = starts(item, segments.recordings.waveform(3), 256)
    samples, _ = soundfile.read(clips[3].path, dtype="float32")
    whole = librosa.feature.melspectrogram(
        y=samples, sr=22050, n_fft=1024, hop_length=256, n_mels=80, fmax=8000, power=1.0, pad_mode="reflect"
    )
    expected = torch.from_numpy(np.log(whole.clip(1e-5)))[:, hop : hop + 63]
    torch.testing.assert_close(item["mel"], expected, rtol=0, atol=1e-3)
