"""Mel files: what is written comes back with its configuration; everything else is refused by name."""

import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from waveflow.audio import MelConfig, MelSpectrogram, read_mel, read_mel_config, write_mel
from waveflow.errors import InputError

CONFIG = MelConfig.from_preset("hifigan-22k")
MEL = MelSpectrogram(CONFIG)(torch.sin(torch.arange(16000.0) ** 1.3)[None] * torch.linspace(1, 0, 16000) ** 3)[0]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_round_trip_with_configuration(tmp_path, suffix):
    for name, mel in (("a", MEL), ("b", MEL[None].double())):
        write_mel(tmp_path / (name + suffix), mel, CONFIG)
        read, config = read_mel(tmp_path / (name + suffix))
        assert torch.equal(read, MEL) and config == CONFIG
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert read_mel(tmp_path / f"a{suffix}", CONFIG)[1] == CONFIG


def test_formats_are_plain(tmp_path):
    write_mel(tmp_path / "a.safetensors", MEL.mT.contiguous().mT, CONFIG)  # not contiguous
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:
        assert json.loads(file.metadata()["mel_config"])["n_mels"] == 80
        np.testing.assert_array_equal(file.get_tensor("mel"), MEL.numpy())
    write_mel(tmp_path / "a.npz", MEL, CONFIG)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert json.loads(str(file["mel_config"])) == CONFIG.to_dict()


def bare(path, array=None):
    array = MEL if array is None else array
    if path.suffix == ".npy":
        np.save(path, np.asarray(array))
    elif path.suffix == ".npz":
        np.savez(path, np.asarray(array))
    elif path.suffix == ".pt":
        torch.save(array, path)
    else:
        safetensors.torch.save_file({"x": array}, path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".npz", ".safetensors"])
def test_bare_files_need_a_configuration(tmp_path, suffix):
    path = bare(tmp_path / f"a{suffix}")
    with pytest.raises(InputError, match=r"pass --mel-config NAME\|FILE \(tacotron2, ") as error:
        read_mel(path)
    assert str(path) in str(error.value)
    mel, config = read_mel(path, CONFIG)
    assert torch.equal(mel, MEL) and config == CONFIG


def test_dtypes_and_a_batch_of_one(tmp_path):
    for array in (MEL.double()[None], MEL.bfloat16(), {"mel": MEL, "text": torch.zeros(3)}):
        mel, _ = read_mel(bare(tmp_path / "a.pt", array), CONFIG)
        assert mel.shape == MEL.shape and mel.dtype == torch.float32
        torch.testing.assert_close(mel, MEL, atol=0.05, rtol=0)
    assert read_mel(bare(tmp_path / "a.npy", MEL.numpy().astype(">f8")), CONFIG)[0].dtype == torch.float32


def test_another_configuration_inside_is_refused_showing_both(tmp_path):
    write_mel(tmp_path / "a.npz", MEL, CONFIG)
    with pytest.raises(InputError) as error:
        read_mel(tmp_path / "a.npz", MelConfig(), owner="runs/1")
    message = str(error.value)
    assert CONFIG.describe() in message and MelConfig().describe() in message
    assert "a.npz was made with hifigan-22k" in message and "runs/1 needs tacotron2" in message


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def corrupt(path):
    path.write_bytes(b"PK\x03\x04 nothing of the kind")
    return path


BAD_FILES = {
    "missing": (lambda d: d / "a.npy", "No such file"),
    "folder": (lambda d: (d / "a.npy").mkdir() or d / "a.npy", "Is a directory"),
    "suffix": (lambda d: d / "a.wav", "not .wav"),
    "transposed": (lambda d: bare(d / "a.npy", MEL.mT), r"\(62, 80\): it is transposed"),
    "batch": (lambda d: bare(d / "a.npy", MEL.expand(2, -1, -1)), "holds 2 mels"),
    "bands": (lambda d: bare(d / "a.pt", MEL[:40]), "80 bands"),
    "integers": (lambda d: bare(d / "a.npy", MEL.int()), "floats, got ndarray"),
    "NaN": (lambda d: bare(d / "a.npy", MEL * float("nan")), "NaN"),
    "log10": (lambda d: bare(d / "a.npy", MEL * np.log10(np.e)), "base-10"),
    "decibels": (lambda d: bare(d / "a.npy", MEL * 8.7), "decibels"),
    "pickle in pt": (lambda d: bare(d / "a.pt", Evil()), "plain tensors"),
    "pickle in npy": (lambda d: np.save(d / "a.npy", np.array([Evil()])) or d / "a.npy", "plain tensors"),
    "several arrays": (lambda d: np.savez(d / "a.npz", a=MEL, b=MEL) or d / "a.npz", "one called mel, got a, b"),
} | {f"corrupt {s}": (lambda d, s=s: corrupt(d / f"a{s}"), "damaged") for s in (".npy", ".npz", ".pt", ".safetensors")}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_by_name(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    make, message = BAD_FILES[case]
    path = make(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        read_mel(path, CONFIG)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_half_a_file_is_refused(tmp_path, suffix):
    write_mel(tmp_path / f"a{suffix}", MEL, CONFIG)
    content = (tmp_path / f"a{suffix}").read_bytes()
    for keep in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / f"a{suffix}").write_bytes(content[:keep])
        with pytest.raises(InputError):
            read_mel(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("description", ["no json", '{"n_mels": 80}', "[1]"])
def test_a_broken_configuration_inside_is_refused(tmp_path, description):
    safetensors.torch.save_file({"mel": MEL}, tmp_path / "a.safetensors", {"mel_config": description})
    with pytest.raises(InputError, match=r"a\.safetensors: .*configuration"):
        read_mel(tmp_path / "a.safetensors")


def test_write_refuses_other_suffixes_and_wrong_mels(tmp_path):
    with pytest.raises(InputError, match=r"not \.npy"):
        write_mel(tmp_path / "a.npy", MEL, CONFIG)
    with pytest.raises(InputError, match="80 bands"):
        write_mel(tmp_path / "a.npz", MEL[:3], CONFIG)
    assert not list(tmp_path.iterdir())


def test_configurations_are_read_by_name_or_from_files(tmp_path):
    assert read_mel_config("hifigan-22k") == CONFIG
    (tmp_path / "a.json").write_text(json.dumps(CONFIG.to_dict()))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(CONFIG.to_dict()).replace("1.0e-05", "1e-5"))
    (tmp_path / "config.json").write_text(json.dumps({"model": "WaveGlow", "mel_config": CONFIG.to_dict()}))
    assert "1e-5" in (tmp_path / "b.yaml").read_text()
    for name in ("a.json", "b.yaml", "config.json"):
        assert read_mel_config(tmp_path / name) == CONFIG


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tacotron", None, "unknown mel configuration 'tacotron', expected tacotron2, "),
        ("a.json", None, "No such file"),
        ("a.json", "{", "a.json: "),
        ("a.yaml", "a: [", "a.yaml: "),
        ("a.yaml", "just text", "a.yaml: a mel configuration is a mapping"),
        ("a.json", '{"n_mels": 80}', "a.json: the mel configuration lacks sample_rate"),
    ],
)
def test_bad_configurations_are_refused(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_mel_config(name)
    assert "\n" not in str(error.value)
