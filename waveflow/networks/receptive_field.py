"""What a network looks at: gradients of its output at one place by all of its inputs."""

import copy

import torch
from torch import Tensor, nn


def receptive_field(
    network: nn.Module,
    shape: tuple[int, ...],
    position: tuple[int, ...],
    context: Tensor | None = None,
    draws: int = 8,
    perturbation: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""How strongly the parameters at one position depend on each number of the input: the mean of
    \|d (random weights \* parameters) / d input\| over several draws of the input, and of the network's own weights.

    The network is copied to float64 and every parameter perturbed by N(0, ``perturbation``), since layers that start at
    zero would hide all. What a mask hides has a gradient of exactly zero; several draws keep ReLUs that happen to be
    off from hiding what is seen.

    Args:
        network: called as ``network(x, context)``, giving (B, P, \*shape) for x (B, \*shape); it is left as it was.
        shape: of an event, e.g. (C, H, W).
        position: index into ``shape``, e.g. (c, i, j).
        context: (1, ...), or None.
        draws: how many.
        perturbation: standard deviation of what is added to the parameters.
        generator: for all that is drawn; by default one with seed 0.

    Returns:
        (\*shape) float64 on the network's device.

    Raises:
        ValueError: if the position is not within the shape, or there are no draws.

    Example:
        >>> from waveflow.networks import PixelCNNStack
        >>> stack = PixelCNNStack((1, 3, 4), hidden=8, layers=1, first_kernel=3)
        >>> (receptive_field(stack, (1, 3, 4), (0, 2, 1))[0] > 0).int().tolist()
        [[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]]
    """
    if len(position) != len(shape) or any(not 0 <= p < n for p, n in zip(position, shape, strict=True)):
        raise ValueError(f"receptive_field expects a position within {tuple(shape)}, got {tuple(position)}")
    if draws < 1:
        raise ValueError(f"receptive_field expects at least 1 draw, got {draws}")
    generator = generator or torch.Generator().manual_seed(0)
    perturbed = copy.deepcopy(network).double()
    parameters = list(perturbed.parameters())
    originals = [parameter.detach().clone() for parameter in parameters]
    device = parameters[0].device if parameters else torch.device("cpu")

    def noise(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(device)

    total = torch.zeros(shape, dtype=torch.float64, device=device)
    context = None if context is None else context.double()
    for _ in range(draws):
        with torch.no_grad():
            for parameter, original in zip(parameters, originals, strict=True):
                parameter.copy_(original + perturbation * noise(*parameter.shape))
        x = noise(1, *shape).requires_grad_()
        params = perturbed(x, context)[(0, slice(None), *position)]
        total += torch.autograd.grad(params @ noise(len(params)), x)[0][0].abs()
    return total / draws
