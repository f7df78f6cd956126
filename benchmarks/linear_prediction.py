"""What whitening and its inverse cost for a second of audio, on the CPU and, where there is one, on a CUDA GPU."""

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.signal import lfilter

from waveflow.audio import MelConfig
from waveflow.bijectors import LinearPrediction
from waveflow.kernels import lattice_synthesis

SECONDS = 4
MEL = MelConfig()


def main() -> None:
    torch.set_num_threads(1)
    frames = round(SECONDS * MEL.sample_rate / MEL.hop_length)
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(1, MEL.n_mels, frames, generator=generator) - 5
    x = 0.1 * torch.randn(1, 1, frames * MEL.hop_length, generator=generator)
    seconds = x.shape[-1] / MEL.sample_rate

    print(f"{'CPU seconds for a second of audio':42}{'forward':>9}{'inverse':>9}")
    for order, block, correction in ((32, 64, 0), (32, 64, 64), (128, 32, 64)):
        whiten = LinearPrediction(MEL, order, block, correction)
        cost = [cpu_seconds(lambda call=call: call(x, mel)) / seconds for call in (whiten, whiten.inverse)]
        print(f"{f'order {order}, block {block}, correction {correction}':42}{cost[0]:9.4f}{cost[1]:9.4f}")
    peer = cpu_seconds(lambda: filter_blocks(x, 32, 64)) / seconds
    print(f"{'peer: scipy lfilter, block by block':42}{'':9}{peer:9.4f}")
    print("(the peer is the all-pole filter alone, in direct form, its coefficients given)")
    if torch.cuda.is_available():
        on_gpu(mel, x, seconds)
    else:
        print("no CUDA GPU here")


def filter_blocks(x: torch.Tensor, order: int, block: int) -> np.ndarray:
    """An all-pole filter in direct form whose coefficients are handed over block by block, as its users run it."""
    signal, memory, out = x[0, 0].double().numpy(), np.zeros(order), []
    predictor = np.concatenate([[1.0], 0.01 * np.ones(order)])
    for start in range(0, len(signal), block):
        piece, memory = lfilter([1.0], predictor, signal[start : start + block], zi=memory)
        out.append(piece)
    return np.concatenate(out)


def on_gpu(mel: torch.Tensor, x: torch.Tensor, seconds: float) -> None:
    print(f"\n{torch.cuda.get_device_name()}, times real time at batch 1, {seconds:.1f} s of audio")
    mel, x = mel.cuda(), x.cuda()
    for order, block, correction in ((32, 64, 0), (32, 64, 64), (128, 32, 64)):
        whiten = LinearPrediction(MEL, order, block, correction).cuda()
        reflection, _ = whiten.filters(mel, x.shape[-1])
        speed = {
            "forward": wall_seconds(lambda w=whiten: w(x, mel)),
            "inverse": wall_seconds(lambda w=whiten: w.inverse(x, mel)),
            "its filter alone": wall_seconds(lambda b=block, r=reflection: lattice_synthesis(x[:, 0].double(), r, b)),
        }
        figures = "   ".join(f"{name} {seconds / cost:,.0f}" for name, cost in speed.items())
        print(f"order {order}, block {block}, correction {correction}: {figures}")


@torch.no_grad()
def cpu_seconds(call: Callable, repeats: int = 7) -> float:
    """Median CPU seconds of a call, the first two left out: they compile."""
    costs = []
    for _ in range(repeats + 2):
        start = time.process_time()
        call()
        costs.append(time.process_time() - start)
    return float(np.median(costs[2:]))


@torch.no_grad()
def wall_seconds(call: Callable, repeats: int = 20) -> float:
    """Median wall seconds of a call on the GPU, the first three left out."""
    costs = []
    for _ in range(repeats + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        costs.append(time.perf_counter() - start)
    return float(np.median(costs[3:]))


if __name__ == "__main__":
    main()
