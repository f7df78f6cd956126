"""What it takes to draw a 28 x 28 image number by number: stepper, Jacobi's rounds, and the whole network each time.

CPU seconds on one thread, random weights, 256 outputs for a pixel (32 for the colour images, as mixtures have). The
peer runs the whole network for every number, as the papers' code does; it is measured over a few passes, in turns with
the stepper, and multiplied by their number.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from waveflow.bijectors import Autoregressive, Standardise
from waveflow.bijectors.solvers import Jacobi
from waveflow.networks import GatedPixelCNNStack, PixelCNNStack

STACKS = {"PixelCNN": PixelCNNStack, "Gated PixelCNN": GatedPixelCNNStack}
GREY, COLOUR = ((1, 28, 28), 256), ((3, 28, 28), 32)
SIZES = ((GREY, 64, 7), (GREY, 128, 15), (COLOUR, 66, 7))
ROUNDS = 3


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'network, hidden, layers, colours':38}{'batch':>6}{'pass s':>9}{'numbers':>9}{'peer s':>9}", end="")
    print(f"{'stepper s':>11}{'ratio':>7}{'off by':>10}")
    for name, stack in STACKS.items():
        for (shape, outputs), hidden, layers in SIZES:
            network = perturbed(stack(shape, outputs, hidden, layers))
            for batch in (1, 16):
                what = f"{name}, {hidden}, {layers}, {shape[0]}"
                report(what, network, 2 * torch.rand(batch, *shape) - 1)
    print("(the peer: seconds of a pass times numbers, not run to its end)")
    print(f"\n{'flow by Jacobi, hidden 64, 7 layers':38}{'rounds':>9}{'CPU s':>9}{'stepper s':>11}{'off by':>10}")
    for name, stack in STACKS.items():
        solve(name, Autoregressive(perturbed(stack((1, 28, 28), 2)), Standardise()))


@torch.inference_mode()
def report(what: str, network: nn.Module, x: Tensor) -> None:
    passes, steppers = [], []
    network(x)
    for _ in range(ROUNDS):
        passes.append(cpu_seconds(lambda: network(x)))
        steppers.append(cpu_seconds(lambda: run(network, x)))
    numbers, once, steps = x[0].numel(), float(np.median(passes)), float(np.median(steppers))
    error = (run(network, x) - network(x)).abs().max().item()
    print(f"{what:38}{len(x):6}{once:9.4f}{numbers:9}{once * numbers:9.2f}{steps:11.3f}", end="")
    print(f"{once * numbers / steps:7.0f}{error:10.1e}", flush=True)


def run(network: nn.Module, x: Tensor) -> Tensor:
    """All parameters by the stepper, (B, P, C, H, W), told the numbers of x."""
    stepper, steps = network.stepper(len(x)), []
    order = network.positions(x.shape[1:])
    for value in x.flatten(1).t()[order].unbind():
        steps.append(stepper.params())
        stepper.push(value)
    return torch.stack(steps, 2)[:, :, order.argsort()].unflatten(2, x.shape[1:])


@torch.inference_mode()
def solve(name: str, flow: Autoregressive) -> None:
    z = torch.randn(1, 1, 28, 28)
    start = time.process_time()
    exact = flow.inverse(z)[0]
    steps = time.process_time() - start
    for tolerance in (1e-6, 0.0):
        flow.solver = Jacobi(tolerance)
        start = time.process_time()
        solution = flow.solve(z)
        cost, error = time.process_time() - start, (solution.x - exact).abs().max().item()
        what = f"{name}, tolerance {tolerance:g}"
        print(f"{what:38}{solution.rounds:9}{cost:9.2f}{steps:11.3f}{error:10.1e}", flush=True)


@torch.no_grad()
def perturbed(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    main()
