"""The benchmark of flows on vectors, rehearsed with toy sizes; it needs none of the peers."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def density(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)  # the tests keep their cores
    spec = importlib.util.spec_from_file_location("density", FOLDER / "density.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("density_peers", None)


@pytest.fixture
def twin(density, monkeypatch):
    """waveflow, with first weights of its own, under the name of a peer: a peer that is always there."""

    def moved(kind, features, hidden):
        flow = density.waveflow(kind, features, hidden)
        density.perturb(flow.module)
        return flow

    for peers in (density.PEERS, density.TORCH_PEERS):
        monkeypatch.setitem(peers, "zuko", moved)
    return "zuko"


def rows(text):
    """First two numbers of the lines that start with a name."""
    number = r"([\d.,]+(?:e[+-]\d+)?)"
    found = re.findall(rf"^(\S.*?) {{2,}}{number} +{number}", text, re.MULTILINE)
    return {name: (float(a.replace(",", "")), float(b.replace(",", ""))) for name, a, b in found}


def test_times_stand_beside_a_peer(density, twin, capsys):
    density.main(["times", "--quick", "--models", "realnvp", "--peers", twin])
    text = capsys.readouterr().out
    found = rows(text)
    assert (
        found["waveflow"][0]
        == found[twin][0]
        == sum(p.numel() for p in density.waveflow("realnvp", 6, (16, 16)).module.parameters())
    )
    assert found["waveflow"][1] > 0 and found["fastest torch peer / waveflow"][0] > 0
    assert "flowjax /" not in text


def test_turns_are_taken_and_slow_calls_take_one(density, monkeypatch):
    monkeypatch.setattr(density, "SLOW", -1.0)
    order = []
    density.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b", "a", "b"]
    monkeypatch.setattr(density, "SLOW", 60.0)
    order.clear()
    density.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3


def test_a_peer_that_is_missing_is_left_out_with_a_line(density, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nflows", None)
    for kind in ("maf", "realnvp"):
        assert [name for name, _ in density.libraries(["nflows"], kind, 4, (8, 8))] == ["waveflow"]
    assert capsys.readouterr().out.count("(nflows is left out: ") == 1


def test_stress_multiplies_all_parameters(density, monkeypatch, capsys):
    monkeypatch.setattr(density, "MODELS", {"realnvp": density.MODELS["realnvp"]})
    seen = []
    monkeypatch.setattr(density, "reconstruction", lambda flow, x: seen.append(norm(flow.module)) or "0")
    density.main(["stress", "--quick", "--peers"])
    for stage in (seen[:3], seen[3:]):
        assert stage == pytest.approx([stage[0], 2 * stage[0], 4 * stage[0]])
    assert len(re.findall("returned|raised: ", capsys.readouterr().out)) == 6


def norm(module):
    return sum(float(p.detach().square().sum()) for p in module.parameters()) ** 0.5


def test_a_sample_that_is_off_is_reported(density):
    torch.manual_seed(0)
    model = density.waveflow("nsf-coupling", 8, (100, 100)).module
    density.perturb(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    assert re.fullmatch(r"raised: \d\S*", density.checked_sample(model, 2000))


def test_univariate_maps_are_exact_under_autocast(density, capsys):
    density.main(["precision", "--quick", "--peers"])
    found = rows(capsys.readouterr().out)
    for name in ("Affine", "Standardise", "RationalQuadraticSpline", "MixtureOfLogisticsCDF"):
        assert max(found[name]) <= 1e-5
    assert found["nsf-coupling, waveflow"][1] > 0


def test_an_autocast_that_costs_precision_is_seen(density):
    def careless(x, params):
        return x, x @ mixing

    generator = torch.Generator().manual_seed(0)
    x, mixing = (torch.randn(20, 20, generator=generator) for _ in range(2))
    assert density.autocast_error(careless, x, torch.zeros(20, 1, 20)) > 1e-3


def test_inverse_errors(density, twin, capsys):
    density.main(["inverse", "--quick", "--peers", twin])
    found = rows(capsys.readouterr().out)
    for kind in ("maf", "nsf-ar", "nsf-coupling"):
        assert 0 < max(found[f"{kind}, waveflow"]) < 1e-4
        assert 0 < max(found[f"{kind}, {twin}"]) < 1e-4
    assert found["maf, waveflow, polish=2"][1] < found["maf, waveflow"][1]


def test_reconstruction_counts_what_is_lost_and_names_what_it_died_of(density):
    def flow(decode):
        return density.TorchFlow(nn.Identity(), None, None, lambda x: x, decode)

    x = torch.zeros(4, 2)
    infinite = torch.tensor([[0.0, 0.5], [torch.nan, 0.0], [0.25, 0.0], [0.0, torch.inf]])
    assert density.reconstruction(flow(lambda z: z + infinite), x) == "5.0e-01, 2 lost"
    assert density.reconstruction(flow(lambda z: z * torch.nan), x) == "-, 4 lost"

    def dies(z):
        raise AssertionError

    assert density.reconstruction(flow(dies), x) == "AssertionError"


def test_solvers_agree(density, capsys):
    density.main(["jacobi", "--quick"])
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines() if line.startswith("Jacobi(tolerance=1e-06")]
    assert len(lines) == 4
    for line in lines:
        assert int(line[-4]) > 0 and float(line[-1]) < 1e-5
