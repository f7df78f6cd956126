"""The plain WaveFlow that benchmarks compare with is the same model: equal weights give equal densities and sound."""

import sys
from pathlib import Path

import pytest
import torch

from waveflow.models import WaveFlow

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
plain = pytest.importorskip("plain_waveflow")


def copy_weights(model, peer):
    def copy(ours, theirs):
        theirs.weight.copy_(ours.weight.reshape(theirs.weight.shape))
        theirs.bias.copy_(ours.bias)

    for ours, theirs in zip(model.encoder.stages, peer.upsample, strict=True):
        copy(ours, theirs)
    for flow, network in zip(model.flows(), peer.networks, strict=True):
        stack = flow.conditioner
        stack.output.weight.normal_(std=0.1)
        copy(stack.input, network.start)
        copy(stack.output, network.end)
        for i, layer in enumerate(stack.layers):
            copy(layer.gates, network.dilated[i])
            copy(layer.condition, network.condition[i])
            copy(layer.mix, network.mix[i])


@torch.no_grad()
def test_the_peer_is_the_same_model():
    torch.manual_seed(0)
    model = WaveFlow(channels=6, layers=3, flows=4)
    peer = plain.PlainWaveFlow(channels=6, layers=3, flows=4)
    copy_weights(model, peer)
    waveform, mel = 0.1 * torch.randn(2, 1536), torch.randn(2, 80, 6) - 5
    torch.testing.assert_close(peer.log_prob(waveform, mel), model.log_prob(waveform, mel), rtol=1e-5, atol=0.05)
    z = torch.randn(2, 1536)
    expected = model.vocode(mel, z=z.unflatten(1, (-1, 16)).transpose(1, 2))
    torch.testing.assert_close(peer.vocode(mel, z), expected, rtol=1e-4, atol=1e-4)
