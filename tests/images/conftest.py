"""A flow of images whose latents are known in closed form: a rotation of the pixels."""

import pytest
import torch
from torch import Tensor, nn


class Rotation(nn.Module):
    """z = Q (x + 1/2), Q orthogonal: means, straight lines and directions of latents are those of the pixels."""

    def __init__(self, shape=(1, 4, 4), seed=0, values=256):
        super().__init__()
        size = torch.Size(shape).numel()
        q = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double()).Q
        self.shape, self.values = tuple(shape), values
        self.q = nn.Parameter(q)
        self.batches = []  # sizes of the batches that came

    def encode(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        assert images.dtype == torch.uint8
        assert label is None or label.shape == (len(images),)
        self.batches.append(len(images))
        shift = 0 if label is None else 10.0 * label[:, None]
        return ((images.flatten(1).double() + 0.5) @ self.q.T + shift).reshape(-1, *self.shape)

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is None or label.shape == (len(z),)
        self.batches.append(len(z))
        shift = 0 if label is None else 10.0 * label[:, None]
        x = (z.flatten(1) - shift) @ self.q
        return x.floor().clamp(0, self.values - 1).to(torch.uint8).reshape(-1, *self.shape)

    def sample(self, n, temperature=1.0, label=None, generator=None) -> Tensor:
        x = 128 + 30 * temperature * torch.randn(n, *self.shape, generator=generator)
        return x.floor().clamp(0, self.values - 1).to(torch.uint8)


@pytest.fixture
def rotation():
    """The class, to be built with a shape, a seed and a number of values."""
    return Rotation
