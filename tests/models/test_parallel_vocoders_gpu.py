"""WaveGlow and WaveFlow on a CUDA device give what they give on a CPU."""

import pytest
import torch

from waveflow.models import WaveFlow, WaveGlow

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

MODELS = [
    (WaveGlow, "tiny"),
    (WaveGlow, "squeeze"),
    (WaveGlow, "ljspeech-64"),
    (WaveFlow, "tiny"),
    (WaveFlow, "ljspeech-64"),
]


@pytest.fixture(params=MODELS, ids=[f"{kind.__name__}-{preset}" for kind, preset in MODELS])
def model(request):
    kind, preset = request.param
    model = kind.from_preset(preset)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    return model


def example(frames=40):
    return 0.1 * torch.randn(2, frames * 256), torch.randn(2, 80, frames) - 5


def test_likelihood_and_synthesis(model):
    waveform, mel = example()
    z = torch.randn(2, *model.latent_shape(40))
    expected, sound = model.log_prob(waveform, mel), model.vocode(mel, z=z)
    model.cuda()
    torch.testing.assert_close(model.log_prob(waveform.cuda(), mel.cuda()).cpu(), expected, rtol=1e-4, atol=1)
    assert (model.vocode(mel, z=z).cpu() - sound).norm() < 1e-3 * sound.norm()
    for dtype, allowed in ((torch.float32, 1e-3), (torch.bfloat16, 0.02), (torch.float16, 0.005)):
        fast = model.for_inference(dtype).vocode(mel, z=z).cpu()
        assert (fast - sound).norm() < allowed * sound.norm()


@torch.no_grad()
def test_synthesis_can_be_captured_by_a_cuda_graph(model):
    _, mel = example()
    fast, mel = model.cuda().for_inference(), mel.cuda()
    z = torch.randn(2, *model.latent_shape(40), device="cuda")
    expected = fast.layers.inverse(z, mel)[0]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = fast.layers.inverse(z, mel)[0]
    for _ in range(2):  # what it replays reads its inputs anew
        graph.replay()
        assert (found - expected).norm() < 1e-4 * expected.norm()
        z.mul_(2)
        expected = fast.layers.inverse(z, mel)[0]


def test_gradients_of_both_memory_modes(model):
    waveform, mel = (t.cuda().double() for t in example())
    gradients = []
    for memory in ("store", "invert"):
        twin = type(model)(**{**vars(model.config), "memory": memory})
        twin.load_state_dict(model.state_dict())
        twin.cuda().double().log_prob(waveform, mel).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in twin.parameters()]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-8 * gradients[0].norm()


def test_bfloat16_training_step(model):
    waveform, mel = (t.cuda() for t in example())
    model.cuda()
    exact = model.log_prob(waveform, mel).mean()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = -model(waveform, mel).mean()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert abs(loss + exact) < 0.01 * waveform.shape[1] + 0.002 * abs(exact)
