"""Whatever is wrong with what a user gives: one clear line, exit code 2, nothing half-written."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from waveflow.audio import MelConfig, MelSpectrogram, read_audio, write_mel


@pytest.fixture
def broken(checkpoint, tmp_path):
    """A copy of the checkpoint with one thing changed."""

    def breaking(name: str):
        folder = tmp_path / "broken"
        folder.mkdir()
        config, weights = folder / "config.json", folder / "model.safetensors"
        config.write_bytes((checkpoint / "config.json").read_bytes())
        weights.write_bytes((checkpoint / "model.safetensors").read_bytes())
        content, tensors = json.loads(config.read_text()), load_file(weights)
        if name == "truncated weights":
            weights.write_bytes(weights.read_bytes()[:-100])
        elif name == "empty weights":
            weights.write_bytes(b"")
        elif name == "no weights":
            weights.unlink()
        elif name == "weights a folder":
            weights.unlink()
            weights.mkdir()
        elif name == "truncated configuration":
            config.write_bytes(config.read_bytes()[:50])
        elif name == "another model":
            config.write_text(json.dumps(content | {"model": "Theremin"}))
        elif name == "another version":
            config.write_text(json.dumps(content | {"format_version": 99}))
        elif name == "another program":
            config.write_text(json.dumps({"architectures": ["BertModel"]}))
        elif name == "another width":
            config.write_text(json.dumps(content | {"config": content["config"] | {"channels": 16}}))
        elif name == "unknown field":
            config.write_text(json.dumps(content | {"config": content["config"] | {"colour": "blue"}}))
        elif name == "not finite":
            first = next(iter(tensors))
            save_file(tensors | {first: tensors[first] * float("nan")}, weights)
        else:
            raise ValueError(name)
        return folder

    return breaking


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "truncated weights": "model.safetensors: truncated",
        "empty weights": "model.safetensors: truncated",
        "no weights": "no model.safetensors",
        "weights a folder": "os error",
        "truncated configuration": "config.json: not JSON",
        "another model": "holds a 'Theremin'",
        "another version": "format version 99",
        "another program": "not a waveflow checkpoint",
        "another width": "expected",
        "unknown field": "colour",
        "not finite": "not finite",
    }.items(),
)
def test_a_bad_checkpoint_is_refused(refused, broken, clip, tmp_path, name, expected):
    folder = broken(name)
    assert expected in refused("info", folder)
    message = refused("vocode", clip, "--model", folder, "--out", tmp_path / "out")
    assert expected in message and str(folder) in message
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_not_there_is_refused(refused, clip, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "no such folder" in refused("vocode", clip, "--model", tmp_path / "none", *out)
    assert "no checkpoint here" in refused("vocode", clip, "--model", tmp_path, *out)
    assert "got a file" in refused("vocode", clip, "--model", clip, *out)


def write_bad_mel(folder, name: str, good: torch.Tensor):
    """A mel file with one thing wrong; (path, options)."""
    tacotron2 = MelConfig.from_preset("tacotron2")
    path, given = folder / "bad.npy", ["--mel-config", "tacotron2"]
    if name == "bands":
        np.save(path, good[:40].numpy())
    elif name == "transposed":
        np.save(path, good.T.numpy())
    elif name == "log base":
        np.save(path, (good / np.log(10)).numpy())
    elif name == "no logarithm":
        np.save(path, good.exp().numpy())
    elif name == "NaN":
        np.save(path, good.numpy() * np.where(np.arange(good.shape[1]) == 3, np.nan, 1))
    elif name == "bare":
        np.save(path, good.numpy())
        given = []
    elif name == "unknown configuration":
        np.save(path, good.numpy())
        given = ["--mel-config", "tacotron3"]
    elif name == "configuration of another model":
        np.save(path, good.numpy())
        given = ["--mel-config", "hifigan-22k"]
    elif name == "rate":
        path, given = folder / "bad.safetensors", []
        write_mel(path, good, MelConfig.from_preset("tacotron2", sample_rate=24000))
    elif name == "truncated":
        path, given = folder / "bad.safetensors", []
        write_mel(path, good, tacotron2)
        path.write_bytes(path.read_bytes()[:-10])
    elif name == "code":
        path = folder / "bad.pt"
        torch.save(_Payload(), path)
    return path, given


class _Payload:
    def __reduce__(self):
        return os._exit, (13,)


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "bands": "80 bands",
        "transposed": "transposed",
        "log base": "base-10 logarithms",
        "no logarithm": "magnitudes",
        "NaN": "NaN or infinite",
        "bare": "--mel-config",
        "unknown configuration": "tacotron3",
        "configuration of another model": "padding (same, not center)",
        "rate": "sample_rate (24000, not 22050)",
        "truncated": "damaged",
        "code": "not a .pt file of plain tensors",
    }.items(),
)
def test_a_bad_mel_is_refused(refused, checkpoint, clip, tmp_path, name, expected):
    good = MelSpectrogram(MelConfig.from_preset("tacotron2"))(read_audio(clip).waveform[None])[0]
    good[:, 0] = np.log(1e-5)
    path, given = write_bad_mel(tmp_path, name, good)
    message = refused("vocode", path, "--model", checkpoint, "--out", tmp_path / "out", *given)
    assert expected in message
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_mel_of_another_configuration_is_refused_with_both_printed(refused, checkpoint, clip, tmp_path):
    config = MelConfig.from_preset("hifigan-22k")
    write_mel(tmp_path / "m.npz", MelSpectrogram(config)(read_audio(clip).waveform[None])[0], config)
    message = refused("vocode", tmp_path / "m.npz", "--model", checkpoint, "--out", tmp_path / "out")
    assert config.describe() in message and MelConfig.from_preset("tacotron2").describe() in message


def write_bad_audio(folder, name: str):
    path = folder / "bad.wav"
    tone = 0.3 * np.sin(np.arange(20000) / 20)
    if name == "missing":
        pass
    elif name == "folder":
        path.mkdir()
    elif name == "below a file":
        (folder / "file").write_text("")
        path = folder / "file" / "bad.wav"
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "text":
        path.write_text("To be or not to be")
    elif name == "truncated":
        soundfile.write(path, tone, 22050)
        path.write_bytes(path.read_bytes()[:20000])
    elif name == "NaN":
        soundfile.write(path, np.where(np.arange(20000) == 9, np.nan, tone), 22050, subtype="FLOAT")
    elif name == "clipped":
        soundfile.write(path, (tone * 30).clip(-1, 1), 22050)
    elif name == "beyond":
        soundfile.write(path, tone * 30, 22050, subtype="FLOAT")
    elif name == "silent":
        soundfile.write(path, 0 * tone, 22050)
    elif name == "short":
        soundfile.write(path, tone[:300], 22050)
    elif name == "no audio":
        path = folder / "bad.docx"
        path.write_text("To be or not to be")
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "missing": "No such file",
        "folder": "is a folder",
        "below a file": "Not a directory",
        "empty": "empty file",
        "text": "not a readable audio file",
        "truncated": "truncated",
        "NaN": "NaN or infinite",
        "clipped": "clipped",
        "beyond": "[-1, 1]",
        "silent": "silent",
        "short": "too short",
        "no audio": "expected a mel",
    }.items(),
)
def test_bad_audio_is_refused_by_name(refused, checkpoint, tmp_path, name, expected):
    path = write_bad_audio(tmp_path, name)
    message = refused("vocode", path, "--model", checkpoint, "--out", tmp_path / "out")
    assert expected in message and str(path) in message
    assert not any((tmp_path / "out").iterdir())


def test_an_out_that_cannot_be_made_is_refused(refused, checkpoint, clip, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        assert str(tmp_path / "file") in refused("vocode", clip, "--model", checkpoint, "--out", out)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_leaves_nothing_half_written(refused, run, checkpoint, clip, tmp_path, small_disk):
    out = tmp_path / "out"
    assert run("vocode", clip, "--model", checkpoint, "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    with small_disk(4096):
        assert "clip.wav: File too large" in refused("vocode", clip, "--model", checkpoint, "--out", out, "--seed", 9)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_figures_that_cannot_be_written_are_refused(refused, checkpoint, clip, tmp_path, small_disk):
    evaluate = ("evaluate", "--model", checkpoint, "--data", tmp_path, "--json")
    assert "no folder" in refused(*evaluate, tmp_path / "none" / "figures.json")
    assert "got a folder" in refused(*evaluate, tmp_path)
    assert "got a device" in refused(*evaluate, "/dev/null")
    (tmp_path / "figures.json").write_text("old")
    with small_disk(100):
        assert "File too large" in refused(*evaluate, tmp_path / "figures.json")
    assert (tmp_path / "figures.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.wav", "figures.json"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "COMMAND"),
        (("sing",), "'sing'"),
        (("vocode",), "required: INPUT"),
        (("vocode", "x.wav", "--out", "out", "--model", "m", "--loud"), "--loud"),
        (("vocode", "x.wav", "--out", "out", "--model", "m", "--seed", "one"), "'one'"),
        (("vocode", "x.wav", "--out", "out", "--model", "m", "--seed", "-1"), "--seed"),
        (("vocode", "x.wav", "--out", "out", "--model", "m", "--chunk-frames", "-1"), "--chunk-frames"),
        (("evaluate", "--model", "m", "--data", "/no/such"), "/no/such"),
        (("evaluate", "--model", "m", "--data", ".", "--clips", "0"), "--clips"),
        (("info", "/no/such"), "/no/such"),
        (("import", "waveglow", "only-one"), "DST"),
        (("import", "tacotron", "a", "b"), "'tacotron'"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(refused, words, expected):
    assert expected in refused(*words)


@pytest.mark.parametrize(
    "option", [("--temperature", "-0.1"), ("--temperature", "nan"), ("--denoise", "-1"), ("--match", "-1")]
)
def test_options_out_of_range_are_refused(refused, checkpoint, clip, tmp_path, option):
    words = ("vocode", clip, "--model", checkpoint, "--out", tmp_path / "out", *option)
    assert option[1].strip("-0") in refused(*words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(refused, checkpoint, clip, tmp_path):
    words = ("vocode", clip, "--model", checkpoint, "--out", tmp_path / "out", "--device", "cuda")
    assert "no CUDA device" in refused(*words)


def test_a_model_that_makes_no_numbers_is_refused(refused, checkpoint, clip, tmp_path):
    """A defective latent scale, as an untrained or diverged model may have."""
    words = ("vocode", clip, "--model", checkpoint, "--out", tmp_path / "out", "--temperature", "inf")
    assert "not finite" in refused(*words)


def test_as_a_program(checkpoint, tmp_path):
    """The same through the real entry point, in a process of its own."""
    command = [sys.executable, "-m", "waveflow", "vocode", "none.wav", "--model", checkpoint, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["waveflow: error: none.wav: No such file or directory"]
    assert done.stdout == ""
