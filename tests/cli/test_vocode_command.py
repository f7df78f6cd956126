"""``waveflow vocode`` against the model called by hand."""

import itertools
import json

import numpy as np
import pytest
import soundfile
import torch

from waveflow.audio import MelConfig, MelSpectrogram, read_audio, write_mel
from waveflow.models import WaveGlow, WaveNet
from waveflow.networks.wavenet_stepper import WaveNetStepper


def samples(path) -> np.ndarray:
    data, rate = soundfile.read(path, dtype="int16")
    assert rate == 22050 and data.ndim == 1
    return data


@pytest.fixture
def mel(clip):
    return MelSpectrogram(MelConfig.from_preset("tacotron2"))(read_audio(clip).waveform[None])[0]


def test_audio_is_analysed_and_made_anew(run, checkpoint, clip, mel, tmp_path):
    code, said, errors = run("vocode", clip, "--model", checkpoint, "--out", tmp_path / "out", "--seed", 3)
    assert (code, errors) == (0, "")
    made = samples(tmp_path / "out" / "clip.wav")
    assert len(made) == len(samples(clip))
    expected = WaveGlow.from_pretrained(checkpoint).vocode(mel[None], generator=torch.Generator().manual_seed(3))[0]
    np.testing.assert_allclose(made / 32768, expected[: len(made)].clamp(-1, 1), atol=1e-4)
    assert np.abs(made).max() > 100
    assert str(tmp_path / "out" / "clip.wav") in said and "x real time" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip.wav"]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".npy", ".pt"])
def test_a_mel_file_gives_what_its_audio_gives(run, checkpoint, clip, mel, tmp_path, suffix):
    source, bare = tmp_path / f"spoken{suffix}", []
    if suffix == ".npy":
        np.save(source, mel.numpy())
    elif suffix == ".pt":
        torch.save(mel, source)
    else:
        write_mel(source, mel, MelConfig.from_preset("tacotron2"))
    bare = ["--mel-config", "tacotron2"] if suffix in (".npy", ".pt") else []
    assert run("vocode", source, clip, "--model", checkpoint, "--out", tmp_path / "out", *bare)[0] == 0
    spoken, copied = samples(tmp_path / "out" / "spoken.wav"), samples(tmp_path / "out" / "clip.wav")
    assert len(spoken) == mel.shape[1] * 256
    np.testing.assert_array_equal(spoken[: len(copied)], copied)


def test_other_rates_and_channels_are_converted_with_a_word(run, checkpoint, clip, tmp_path):
    data, _ = soundfile.read(clip)
    soundfile.write(tmp_path / "stereo.wav", np.stack([data, data], 1), 44100)
    code, _, _ = run("vocode", tmp_path / "stereo.wav", "--model", checkpoint, "--out", tmp_path / "out")
    assert code == 0
    assert abs(len(samples(tmp_path / "out" / "stereo.wav")) - len(data) / 2) <= 1


def test_equal_seeds_give_equal_bytes_whatever_else_is_vocoded(run, checkpoint, clip, tmp_path):
    second = tmp_path / "second.wav"
    second.write_bytes(clip.read_bytes())
    for out, inputs, seed in (("a", [clip], 1), ("b", [second, clip], 1), ("c", [clip], 2)):
        assert run("vocode", *inputs, "--model", checkpoint, "--out", tmp_path / out, "--seed", seed)[0] == 0
    a, b, c = ((tmp_path / out / "clip.wav").read_bytes() for out in "abc")
    assert a == b != c


def test_chunks_do_not_change_the_sound(run, checkpoint, clip, tmp_path):
    for frames in (0, 7):
        out = tmp_path / str(frames)
        assert run("vocode", clip, "--model", checkpoint, "--out", out, "--chunk-frames", frames)[0] == 0
    whole, pieces = (samples(tmp_path / name / "clip.wav").astype(int) for name in ("0", "7"))
    assert np.abs(whole - pieces).max() <= 4


@pytest.mark.parametrize("option", [("--temperature", 0), ("--denoise", 0.5), ("--precision", "bf16")])
def test_options_reach_the_vocoder(run, checkpoint, clip, tmp_path, option):
    assert run("vocode", clip, "--model", checkpoint, "--out", tmp_path / "plain")[0] == 0
    assert run("vocode", clip, "--model", checkpoint, "--out", tmp_path / "other", *option)[0] == 0
    plain, other = (samples(tmp_path / name / "clip.wav").astype(float) for name in ("plain", "other"))
    if option[0] == "--precision":
        assert 0 < np.abs(plain - other).mean() < 0.05 * np.abs(plain).mean()
    else:
        assert np.abs(other).mean() < 0.997 * np.abs(plain).mean()


def test_a_copy_is_matched_to_its_mel_on_request(run, checkpoint, clip, tmp_path):
    assert run("vocode", clip, "--model", checkpoint, "--out", tmp_path / "plain")[0] == 0
    assert run("vocode", clip, "--model", checkpoint, "--out", tmp_path / "matched", "--match", 3)[0] == 0
    mel = MelSpectrogram(MelConfig())
    asked, plain, matched = (
        mel(torch.from_numpy(samples(name).astype("float32") / 32768)[None])
        for name in (clip, tmp_path / "plain" / "clip.wav", tmp_path / "matched" / "clip.wav")
    )
    assert (matched - asked).abs().mean() < 0.7 * (plain - asked).abs().mean()


def test_pictures_are_written_beside(run, checkpoint, clip, tmp_path):
    assert run("vocode", clip, "--model", checkpoint, "--out", tmp_path / "out", "--pictures")[0] == 0
    assert (tmp_path / "out" / "clip.png").read_bytes()[:4] == b"\x89PNG"


def test_one_bad_input_is_named_and_the_others_are_done(run, checkpoint, clip, tmp_path):
    code, said, errors = run("vocode", tmp_path / "no.wav", clip, "--model", checkpoint, "--out", tmp_path / "out")
    assert code == 2
    assert errors.splitlines() == [
        f"waveflow: error: {tmp_path / 'no.wav'}: No such file or directory",
        "waveflow: error: 1 of 2 inputs could not be vocoded",
    ]
    assert "clip.wav" in said and samples(tmp_path / "out" / "clip.wav").size


def test_an_input_is_never_written_over(refused, checkpoint, clip):
    before = clip.read_bytes()
    assert "would write over it" in refused("vocode", clip, "--model", checkpoint, "--out", clip.parent)
    assert clip.read_bytes() == before


def test_two_inputs_of_one_name_are_refused(refused, checkpoint, clip, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "clip.flac"
    soundfile.write(other, samples(clip), 22050)
    message = refused("vocode", clip, other, "--model", checkpoint, "--out", tmp_path / "out")
    assert "would both become" in message and not (tmp_path / "out").exists()


def wavenet(folder, **fields):
    torch.manual_seed(1)
    made = WaveNet(
        layers=2, channels=8, kernel_size=2, first_kernel=4, upsampler="linear", context_channels=8, **fields
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    return folder


def test_a_wavenet_samples_by_the_method_that_is_asked_for(run, clip, tmp_path):
    model = wavenet(tmp_path / "model")
    for method in ("auto", "incremental", "kernel", "jacobi"):
        words = ("vocode", clip, "--model", model, "--out", tmp_path / method, "--method", method)
        assert run(*words, "--temperature", 0.05)[0] == 0
        made = samples(tmp_path / method / "clip.wav").astype(int)
        assert np.abs(made - samples(tmp_path / "auto" / "clip.wav").astype(int)).max() <= 4


def test_a_voice_can_be_chosen(run, refused, clip, tmp_path):
    model = wavenet(tmp_path / "model", speakers=3)
    words = ("vocode", clip, "--model", model, "--temperature", 0.05)
    for speaker in ("0", "2"):
        assert run(*words, "--out", tmp_path / speaker, "--speaker", speaker, "--denoise", 0.01)[0] == 0
    assert (samples(tmp_path / "0" / "clip.wav") != samples(tmp_path / "2" / "clip.wav")).any()
    assert "0 ... 2" in refused(*words, "--out", tmp_path / "none", "--speaker", 3)
    assert "0 ... 2" in refused(*words, "--out", tmp_path / "none")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clip.wav").write_bytes(clip.read_bytes())
    figures = {}
    for speaker in (0, 2):
        words = ("evaluate", "--model", model, "--data", tmp_path / "data", "--speaker", speaker)
        assert run(*words, "--json", tmp_path / "f.json", "--method", "incremental")[0] == 0
        figures[speaker] = json.loads((tmp_path / "f.json").read_text())
    assert figures[0]["nats_per_sample"] != figures[2]["nats_per_sample"]
    assert figures[2]["speaker"] == 2 and figures[2]["method"] == "incremental"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--method", "kernel"), "a WaveGlow has no way of sampling to choose"),
        (("--speaker", 0), "a WaveGlow has no speakers"),
        (("--keep-partial",), "a WaveGlow has no partial results to keep"),
    ],
)
def test_what_a_model_does_not_have_is_refused(refused, checkpoint, clip, tmp_path, words, expected):
    message = refused("vocode", clip, "--model", checkpoint, "--out", tmp_path / "out", *words)
    assert expected in message and str(checkpoint) in message and not (tmp_path / "out").exists()


def test_an_unknown_method_is_refused(refused, clip, tmp_path):
    model = wavenet(tmp_path / "model")
    assert "'magic'" in refused("vocode", clip, "--model", model, "--out", tmp_path / "out", "--method", "magic")


def test_what_an_interrupted_synthesis_made_is_kept_on_request(run, clip, mel, tmp_path, monkeypatch):
    model = wavenet(tmp_path / "model")
    write_mel(tmp_path / "mel.npz", mel, MelConfig.from_preset("tacotron2"))
    words = ("vocode", tmp_path / "mel.npz", clip, "--model", model, "--temperature", 0.05, "--method", "incremental")
    assert run(*words, "--out", tmp_path / "whole")[0] == 0
    whole = samples(tmp_path / "whole" / "mel.wav")
    steps = itertools.count()
    params = WaveNetStepper.params

    def interrupted(self):
        if next(steps) == 5000:
            raise KeyboardInterrupt
        return params(self)

    monkeypatch.setattr(WaveNetStepper, "params", interrupted)
    code, said, errors = run(*words, "--out", tmp_path / "part", "--keep-partial")
    assert code == 130 and "interrupted" in errors
    assert [path.name for path in (tmp_path / "part").iterdir()] == ["mel.partial.wav"]
    part = samples(tmp_path / "part" / "mel.partial.wav")
    assert 4000 < len(part) <= 5000 and f"{tmp_path / 'part' / 'mel.partial.wav'}: the first" in said
    np.testing.assert_array_equal(part, whole[: len(part)])

    steps = itertools.count()
    assert run(*words, "--out", tmp_path / "nothing")[0] == 130
    assert not any((tmp_path / "nothing").iterdir())
