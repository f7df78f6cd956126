"""WaveNet on a CUDA device gives what it gives on a CPU, by graphs too."""

import pytest
import torch

from waveflow.models import WaveNet

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

HEADS = ["gaussian", "logistics", "mol", "softmax"]


def wavenet(head, **fields):
    model = WaveNet(**{"layers": 9, "cycle": 0, "channels": 16, "head": head, "components": 3, **fields})
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model.double().cuda()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("batch", [1, 3])
def test_graphs_give_the_samples_of_the_stepper(head, batch):
    model = wavenet(head, whiten=head in ("gaussian", "logistics"))
    mel = torch.randn(batch, 80, 3).double() - 5
    z = model.draw_latent(3, batch, 1.0, torch.Generator("cuda").manual_seed(0))
    expected = model.vocode(mel, z=z, method="incremental")
    for chunk in (None, 1):
        torch.testing.assert_close(model.vocode(mel, z=z, method="graph", chunk=chunk), expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(model.vocode(mel, z=z), expected, rtol=1e-7, atol=1e-8)  # auto
    torch.testing.assert_close(model.vocode(mel, z=z, method="jacobi"), expected, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(
        model.cpu().vocode(mel, z=z.cpu(), method="kernel"), expected.cpu(), rtol=1e-6, atol=1e-7
    )


def test_likelihood_and_training_step():
    model = WaveNet.from_preset("tiny")
    waveform, mel = 0.1 * torch.randn(2, 2048), torch.randn(2, 80, 8) - 5
    expected = model.log_prob(waveform, mel)
    model.cuda()
    torch.testing.assert_close(model.log_prob(waveform.cuda(), mel.cuda()).cpu(), expected, rtol=1e-4, atol=1)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = -model(waveform.cuda(), mel.cuda()).mean()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
