"""The comparison of Glows, rehearsed with toy sizes; only one test needs the peer."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from waveflow.errors import InputError
from waveflow.models import Glow

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = ["--steps=4", "--evaluate-every=3", "--hidden=8", "--flow-steps=2", "--test-images=50", "--seeds=[0,1]"]


@pytest.fixture
def quality(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("glow_quality", FOLDER / "glow_quality.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "glow_quality", module)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("glow_peers", None)


@pytest.fixture
def twin(quality, monkeypatch):
    """waveflow under the name of the peer: a peer that is always there."""

    def glow(levels, steps, hidden, shape):
        channels, height, width = shape
        model = Glow(channels=channels, height=height, width=width, levels=levels, steps=steps, hidden=hidden)
        return SimpleNamespace(module=model, log_prob=model.flow.log_prob)

    monkeypatch.setitem(quality.PEERS, "normflows", glow)


def test_a_twin_sees_the_same_images_in_the_same_noise(quality, twin, tmp_path, capsys):
    out = tmp_path / "results.json"
    quality.main([*TINY, f"--out={out}"])
    rows = json.loads(out.read_text())["rows"]
    curves = {(row["seed"], row["library"]): row["bits_per_dim"] for row in rows}
    assert list(curves[0, "waveflow"]) == ["0", "3", "4"]
    for seed in (0, 1):
        assert curves[seed, "waveflow"] == curves[seed, "normflows"]
    assert curves[0, "waveflow"] != curves[1, "waveflow"]
    assert capsys.readouterr().out.splitlines()[-1].count("+0.000 ± 0.000") == 3


def test_a_preset_keeps_its_choices_at_the_sizes_of_the_others(quality, tmp_path, monkeypatch):
    images = quality.load_images("digits", None, progress=False)
    monkeypatch.setitem(Glow.PRESETS, "digits", {"alpha": 0.05, "hidden": 64, "steps": 4})
    args = quality.Arguments(hidden=8, flow_steps=2)
    plain, preset = (quality.build(library, images, args)[0].config for library in ("waveflow", "waveflow-preset"))
    assert preset == dataclasses.replace(plain, alpha=0.05)
    with pytest.raises(InputError, match="no preset 'photographs'"):
        quality.build("waveflow-preset", images, dataclasses.replace(args, data="photographs"))


def test_each_contender_is_compared_with_the_peer(quality, twin, tmp_path, capsys):
    out = tmp_path / "results.json"
    quality.main([*TINY, "--libraries=[waveflow,waveflow-preset,normflows]", f"--out={out}"])
    lines = capsys.readouterr().out.splitlines()[-2:]  # the preset for digits has no choices beside its sizes
    assert [line.split("|")[1].strip() for line in lines] == ["waveflow - normflows", "waveflow-preset - normflows"]
    assert all(line.count("+0.000 ± 0.000") == 3 for line in lines)


def test_finished_runs_are_kept_and_those_of_other_settings_refused(quality, twin, tmp_path, capsys):
    out = tmp_path / "results.json"
    quality.main([*TINY, f"--out={out}", "--libraries=[waveflow]"])
    before = json.loads(out.read_text())["rows"]
    capsys.readouterr()
    quality.main([*TINY, f"--out={out}"])
    assert "waveflow, seed" not in capsys.readouterr().out
    assert json.loads(out.read_text())["rows"][:2] == before
    with pytest.raises(InputError, match="expected results of"):
        quality.main([*TINY, "--hidden=9", f"--out={out}"])


def test_averaged_weights_are_evaluated_where_asked_for(quality, twin, tmp_path):
    curves = []
    for average in (0.0, 0.999):
        out = tmp_path / f"{average}.json"
        quality.main([*TINY, f"--average={average}", "--libraries=[waveflow]", "--seeds=[0]", f"--out={out}"])
        curves.append(json.loads(out.read_text())["rows"][0]["bits_per_dim"])
    assert curves[0]["0"] == curves[1]["0"]
    assert curves[0]["4"] < curves[1]["4"] < curves[1]["0"]  # behind, but on the way


def test_bits_are_those_of_the_model(quality):
    torch.manual_seed(0)
    model = Glow.from_preset("digits", steps=2, hidden=8)
    images = torch.randint(0, 17, (20, 1, 8, 8), dtype=torch.uint8)
    model.initialize(images)
    expected = model.bits_per_dim(images, generator=torch.Generator().manual_seed(1))
    y, _ = model.dequantise(images, 17, torch.Generator().manual_seed(1))
    torch.testing.assert_close(quality.test_bits(model, model.flow.log_prob, y, 17).float(), expected)
    flat = quality.test_bits(nn.Identity(), lambda part: part.new_zeros(len(part)), y, 256)
    assert flat.tolist() == pytest.approx([8.0] * 20)


@pytest.mark.parametrize(
    "loss",
    [lambda w: w.sum() * torch.nan, lambda w: w.sum() + torch.inf, lambda w: (0 * w).sqrt().sum()],
    ids=["nan", "inf, but not its gradients", "finite, but not its gradients"],
)
def test_steps_that_are_not_finite_are_left_out(quality, loss):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters())
    before = model.weight.clone()
    assert not quality.update(model, optimizer, loss(model.weight))
    assert torch.equal(before, model.weight)
    assert quality.update(model, optimizer, model.weight.sum())
    assert not torch.isclose(before, model.weight).any()


@pytest.mark.parametrize(
    "wrong", ["--steps=0", "--libraries=[zuko]", "--seeds=[-1]", "--levels=4", "--learning-rate=0", "--average=1"]
)
def test_wrong_flags_are_refused(quality, wrong, tmp_path):
    with pytest.raises(InputError):
        quality.main([*TINY, wrong, f"--out={tmp_path / 'results.json'}"])
    assert not list(tmp_path.iterdir())


def test_a_missing_peer_is_said_at_once(quality, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "normflows", None)
    with pytest.raises(InputError, match="pip install normflows"):
        quality.main([*TINY, f"--out={tmp_path / 'results.json'}"])
    assert not list(tmp_path.iterdir())


def test_the_peer_reports_its_own_density(quality):
    pytest.importorskip("normflows")
    torch.manual_seed(0)
    peer = quality.PEERS["normflows"](2, 2, 4, (1, 4, 4))
    model, x = peer.module.double(), torch.rand(4, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        peer.log_prob(x)  # the first batch sets the norms
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        found = peer.log_prob(x)

    def standardised(flat):
        latents, _ = model.inverse_and_log_det(flat.view(1, 1, 4, 4))
        return torch.cat([((z - q.loc) / q.log_scale.exp()).flatten() for z, q in zip(latents, model.q0, strict=True)])

    for image, nats in zip(x, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(standardised, image.flatten())
        normal = torch.distributions.Normal(0.0, 1.0).log_prob(standardised(image.flatten())).sum()
        torch.testing.assert_close(nats, normal + torch.linalg.slogdet(jacobian).logabsdet)
