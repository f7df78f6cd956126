"""Vocoders that come with the package: rounded, found by name, used where none is named."""

import json

import pytest
import torch
from safetensors.torch import load_file

from waveflow.errors import InputError
from waveflow.models import (
    Glow,
    WaveFlow,
    WaveGlow,
    best_vocoder,
    load_model,
    load_vocoder,
    shipped,
    shipped_models,
    shipped_vocoders,
)

TOY = {"flows": 2, "group": 8, "early_every": 0, "layers": 1, "channels": 4, "upsampler": "linear"}


def toy(seed=0):
    torch.manual_seed(seed)
    model = WaveGlow(**TOY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def test_rounded_weights_come_back_in_float32(tmp_path):
    model = toy()
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "rounded", torch.bfloat16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "rounded")]
    assert sizes[1] < 0.75 * sizes[0]  # a toy is half names of tensors
    stored = load_file(tmp_path / "rounded" / "model.safetensors")
    assert {stored[name].dtype for name, _ in model.named_parameters()} == {torch.bfloat16}

    loaded = WaveGlow.from_pretrained(tmp_path / "rounded")
    for name, value in loaded.state_dict().items():
        before = model.state_dict()[name]
        assert value.dtype == before.dtype
        expected = before.bfloat16().float() if before.is_floating_point() else before
        assert torch.equal(value, expected)
    waveform, mel = 0.1 * torch.randn(1, 1024), torch.randn(1, 80, 4) - 5
    assert loaded.log_prob(waveform, mel).dtype == torch.float32
    assert loaded.vocode(mel).isfinite().all()


def test_values_that_the_dtype_cannot_hold_are_refused(tmp_path):
    model = toy()
    with torch.no_grad():
        next(model.parameters()).fill_(1e5)
    with pytest.raises(InputError, match=r"holds values that are not finite in torch\.float16"):
        model.save_pretrained(tmp_path / "half", torch.float16)
    assert not (tmp_path / "half").exists()


def test_shipped_models_are_loaded_by_name(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first, second = toy(1), toy(2)
    first.save_pretrained(folder / "first")
    second.save_pretrained(folder / "second")
    (folder / ".second.partial").mkdir()
    assert shipped_models() == ["first", "second"]
    (folder / "best.txt").write_text("second\n")
    assert best_vocoder() == "second"
    mel, z = torch.randn(1, 80, 4) - 5, torch.randn(1, 8, 128)
    for loaded in (load_model("second"), load_vocoder("second"), load_vocoder(), WaveGlow.from_pretrained("second")):
        assert torch.equal(loaded.vocode(mel, z=z), second.vocode(mel, z=z))
    with pytest.raises(InputError, match="holds a WaveGlow, expected a WaveFlow"):
        WaveFlow.from_pretrained("second")

    first.save_pretrained("second")  # a folder of one's own comes before
    assert torch.equal(load_vocoder("second").vocode(mel, z=z), first.vocode(mel, z=z))


def test_the_only_one_is_the_best(folder):
    toy().save_pretrained(folder / "only")
    assert best_vocoder() == "only"


def test_an_installation_without_any_says_what_to_do(folder):
    with pytest.raises(InputError, match=r"^no vocoder ships with this installation .* --model, a folder that recipes"):
        load_vocoder()
    with pytest.raises(InputError, match=r"^waveglow: no such folder$"):
        load_vocoder("waveglow")
    folder.mkdir()
    (folder / "best.txt").write_text("gone")
    with pytest.raises(InputError, match=r"best\.txt: names 'gone', shipped are none$"):
        best_vocoder()


@pytest.mark.parametrize(
    "name", shipped_vocoders() or [pytest.param("", marks=pytest.mark.skip("none is shipped yet"))]
)
def test_what_is_shipped_speaks(name):
    source = shipped.SHIPPED / name
    assert (source / "model.safetensors").stat().st_size <= 16_000_000
    stored = load_file(source / "model.safetensors")
    model = load_vocoder(name)
    assert {stored[name].dtype for name, _ in model.named_parameters()} == {torch.bfloat16}
    card = (source / "README.md").read_text()
    figures = json.loads((source / "figures.json").read_text())
    assert f"{figures['shipped']['nats_per_sample']:.3f}" in card
    waveform = model.vocode(torch.full((1, 80, 8), -4.5), generator=torch.Generator().manual_seed(0))
    assert waveform.shape == (1, 2048) and waveform.abs().max() < 1


def test_models_of_images_are_no_vocoders(folder):
    Glow.from_preset("digits", steps=1, hidden=4).save_pretrained(folder / "digits")
    assert shipped_models() == ["digits"] and shipped_vocoders() == []
    assert load_model("digits").image_shape == (1, 8, 8)
    with pytest.raises(InputError, match=r"^no vocoder ships with this installation"):
        best_vocoder()


@pytest.mark.parametrize("name", sorted({*shipped_models()} - {*shipped_vocoders()}))
def test_what_is_shipped_of_images_draws(name):
    source = shipped.SHIPPED / name
    assert (source / "model.safetensors").stat().st_size <= 8_000_000
    figures = json.loads((source / "figures.json").read_text())["shipped"]
    assert f"{figures['bits_per_dim']:.4f}" in (source / "README.md").read_text()
    model = load_model(name)
    images = model.sample(50, 0.7, generator=torch.Generator().manual_seed(0))
    assert images.float().std() > 10 and model.bits_per_dim(images).mean() < figures["bits_per_dim"]
