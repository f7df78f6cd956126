"""The benchmark of WaveNet, rehearsed with networks small enough to do so often."""

import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def wavenet(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "wavenet", raising=False)
    import wavenet

    tiny = {"layers": 3, "cycle": 2, "channels": 8}
    whole = wavenet.random_model
    monkeypatch.setattr(wavenet, "random_model", lambda preset: whole(preset, **tiny))
    monkeypatch.setattr(wavenet, "FRAMES", {"kernel": 1, "incremental": 1, "jacobi": 1})
    monkeypatch.setattr(wavenet, "PEER_SAMPLES", 5)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    return wavenet


def test_samplers_are_compared(wavenet, monkeypatch, capsys):
    arguments = ["wavenet.py", "sampling", "--presets", "gaussian", "softmax", "--batches", "2", "--turns", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    wavenet.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 4
    for preset in ("gaussian", "softmax"):
        for name in ("plain peer", "kernel", "incremental", "jacobi"):
            (line,) = (line for line in lines if line.startswith(f"{preset}, {name} "))
            assert float(line[30:40]) > 0
    assert "passes for 256 steps" in lines[4]


def test_steps_are_compared(wavenet, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["wavenet.py", "training", "--presets", "mol", "--turns", "1"])
    wavenet.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["mol, plain peer", "mol, waveflow"]


@pytest.mark.parametrize("head", ["gaussian", "mol", "softmax"])
def test_the_peer_samples_what_its_network_says(wavenet, head):
    from plain_wavenet import PlainWaveNet

    torch.manual_seed(0)
    peer = PlainWaveNet(head, layers=4, cycle=3, channels=8, kernel_size=3, first_kernel=2, context=5)
    context, seen = torch.randn(2, 5, 20), []
    peer._draw, draw = lambda params: seen.append(params) or draw(params), peer._draw
    x = peer.sample(context)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(seen, 2), peer(x, context), rtol=1e-4, atol=1e-5)
    assert peer.loss(x, context).isfinite()


def test_bytes_of_weights_are_those_of_a_count_by_hand(wavenet):
    model = wavenet.random_model("gaussian")  # 3 layers with dilations 1, 2, 1; channels filled up to 16
    every = 32 * 16 + 3 * (16 * 32 + 16 * 32) + 16 * 16 + 16 * 16
    older = 16 * 32 * (1 + 1 / 2 + 1)
    condition = 3 * 80 * 32 / 64
    assert wavenet.bytes_per_step(model, 1) == 4 * (every + older + condition)
