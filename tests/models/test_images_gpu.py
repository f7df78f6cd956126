"""Models of images on a CUDA device give what they give on a CPU."""

import pytest
import torch

from waveflow.models import NICE, GatedPixelCNN, Glow, PixelCNN, RealNVP

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SIZE = {"channels": 1, "height": 8, "width": 8, "values": 17}
FLOWS = {
    "glow": lambda **fields: Glow(levels=2, steps=2, hidden=8, **SIZE, **fields),
    "realnvp": lambda: RealNVP(levels=1, blocks=1, hidden=4, **SIZE),
    "nice": lambda: NICE.from_preset("digits"),
}
PIXELS = {
    "pixelcnn": lambda: PixelCNN(layers=2, hidden=6, first_kernel=3, **SIZE),
    "gated": lambda: GatedPixelCNN(layers=2, hidden=6, first_kernel=3, **SIZE),
}


def moved(model):
    """Away from the start, where all networks are silent, and set to its data."""
    images = torch.randint(0, 17, (8, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    if hasattr(model, "initialize"):
        model.initialize(images)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
    return model.double().eval(), images


@pytest.mark.parametrize("name", FLOWS)
def test_flows_have_the_density_and_the_inverse(name):
    model, images = moved(FLOWS[name]())
    x = (images.double() + 0.5) / 17
    z = torch.randn(4, *model.latent_shape, generator=torch.Generator().manual_seed(3)).double()
    expected, decoded = model.flow.log_prob(x), model.flow.bijector.inverse(z)[0]
    model.cuda()
    torch.testing.assert_close(model.flow.log_prob(x.cuda()).cpu(), expected)
    torch.testing.assert_close(model.flow.bijector.inverse(z.cuda())[0].cpu(), decoded)
    drawn = model.sample(4, generator=torch.Generator("cuda").manual_seed(0))
    assert drawn.shape == (4, 1, 8, 8) and drawn.dtype == torch.uint8


@pytest.mark.parametrize("name", PIXELS)
def test_pixelcnns_draw_the_same_images_by_each_solver(name):
    model, images = moved(PIXELS[name]())
    u = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(3)).double()
    expected = model.log_prob(images)
    drawn = model.distribution.solve(u, None, solver="sequential").x
    model.cuda()
    torch.testing.assert_close(model.log_prob(images.cuda()).cpu(), expected)
    for solver in ("sequential", "jacobi"):
        assert torch.equal(model.distribution.solve(u.cuda(), None, solver=solver).x.cpu(), drawn)


def test_gradients_of_both_memory_modes():
    gradients = []
    for memory in ("store", "invert"):
        torch.manual_seed(0)
        model, images = moved(FLOWS["glow"](memory=memory))
        x = ((images.double() + 0.5) / 17).cuda()
        model.cuda().flow.log_prob(x).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-8 * gradients[0].norm()


@pytest.mark.parametrize("name", [*FLOWS, *PIXELS])
def test_bfloat16_training_step(name):
    model, images = moved({**FLOWS, **PIXELS}[name]())
    model.float().cuda().train()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = -model.log_prob(images.cuda()).mean()
    loss.backward()
    assert loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
