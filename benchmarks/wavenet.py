"""WaveNet sampled on a CPU in every way, beside a plain peer in the same run; a training step.

    python benchmarks/wavenet.py sampling      # samples per CPU second of each sampler, and the ratio to the peer
    python benchmarks/wavenet.py training      # CPU seconds of a likelihood of 16,000 samples and its gradients

One thread, float32, random weights. The samplers take turns, so that all see the same neighbours on the machine, and
the best turn of each counts. A rate is of all utterances of a batch together. "weights": what the kernel has to read of
them for a step, and at which rate it does.
"""

import argparse
import time
from collections.abc import Callable

import torch
from plain_wavenet import PlainWaveNet
from torch import Tensor

from waveflow.kernels.wavenet_loop import block_length, pack_weights
from waveflow.models import WaveNet
from waveflow.models.wavenet_sampling import FrameContext, Task, find_sampler

PRESETS = ("mol", "gaussian", "small", "softmax")
FRAMES = {"kernel": 48, "incremental": 2, "jacobi": 2}  # that a turn makes, at batch 1
PEER_SAMPLES = 200


def sampling(presets: list[str], batches: list[int], turns: int) -> None:
    print(f"{'samples per CPU second':24}{'batch':>6}{'rate':>10}{'/ peer':>8}   ", flush=True)
    for preset in presets:
        model = random_model(preset)
        peer = make_peer(model)
        for batch in batches:
            rates, note = measure(model, peer, batch, turns)
            for name, rate in rates.items():
                print(f"{preset + ', ' + name:24}{batch:6}{rate:10.0f}{rate / rates['plain peer']:8.1f}   ", end="")
                print(note.get(name, ""), flush=True)


def measure(model: WaveNet, peer: PlainWaveNet, batch: int, turns: int) -> tuple[dict[str, float], dict[str, str]]:
    """Samples per CPU second by the name of a sampler, and something to say about some of them."""
    generator = torch.Generator().manual_seed(0)
    hop, calls, samples = model.config.mel.hop_length, {}, {}
    context = torch.randn(batch, 80, -(-PEER_SAMPLES // batch), generator=generator)
    calls["plain peer"] = lambda: peer.sample(context)
    samples["plain peer"] = context.shape[2] * batch
    passes = []
    for method, frames in FRAMES.items():
        frames = max(1, frames // batch)
        mel = torch.randn(batch, 80, frames, generator=generator) - 5
        z = model.draw_latent(frames, batch, 1.0, generator)
        calls[method] = lambda method=method, mel=mel, z=z: draw(model, mel, z, method)
        samples[method] = batch * frames * hop
    best = dict.fromkeys(calls, float("inf"))
    calls["kernel"]()  # compiles it, or loads what was compiled
    with model.stack.register_forward_hook(lambda *_: passes.append(1)):
        calls["jacobi"]()
    for _ in range(turns):
        for name, call in calls.items():
            best[name] = min(best[name], cpu_seconds(call))
    rates = {name: samples[name] / seconds for name, seconds in best.items()}
    size = bytes_per_step(model, batch)
    speed = size * rates["kernel"] / batch
    note = {
        "kernel": f"weights: {size / 1e6:.1f} MB a step, {speed / 1e9:.0f} GB/s",
        "jacobi": f"{len(passes)} passes for {samples['jacobi'] // batch} steps",
    }
    return rates, note


@torch.no_grad()
def draw(model: WaveNet, mel: Tensor, z: Tensor, method: str) -> None:
    """The sampling of ``vocode``, upsampling included, without what it does once with the result."""
    hop = model.config.mel.hop_length
    head = model.distribution.head if model.quantiser else model.layers.bijector.univariate
    context = FrameContext(model.encoder, mel, hop, frames=8)
    for _ in find_sampler(method, z)(Task(model.stack, head, 1.0, context, z[:, 0], 8 * hop)):
        pass


def training(presets: list[str], turns: int) -> None:
    print(f"{'forward + backward, 16,000 samples':36}{'CPU s':>8}{'peer / this':>13}", flush=True)
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(1, 16000, generator=generator)
    mel = torch.randn(1, 80, 63, generator=generator) - 5
    context = torch.randn(1, 80, 16000, generator=generator)
    for preset in presets:
        model = random_model(preset)
        peer = make_peer(model, normed=True)

        def ours(model=model) -> None:
            model.zero_grad()
            (-model.log_prob(waveform, mel).mean() / 16000).backward()

        def plain(peer=peer) -> None:
            peer.zero_grad()
            peer.loss(waveform, context).backward()

        best = {"plain peer": float("inf"), "waveflow": float("inf")}
        for _ in range(turns):
            for name, call in (("plain peer", plain), ("waveflow", ours)):
                best[name] = min(best[name], cpu_seconds(call))
        for name, seconds in best.items():
            print(f"{preset + ', ' + name:36}{seconds:8.2f}{best['plain peer'] / seconds:13.2f}", flush=True)


@torch.no_grad()
def random_model(preset: str, **fields) -> WaveNet:
    """Away from the start, where every sample has the same distribution."""
    model = WaveNet.from_preset(preset, **fields)
    weight = model.stack.output.weight
    weight.copy_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    return model


def make_peer(model: WaveNet, normed: bool = False) -> PlainWaveNet:
    c = model.config
    return PlainWaveNet(c.head, c.layers, c.cycle, c.channels, c.kernel_size, c.first_kernel, normed=normed)


def bytes_per_step(model: WaveNet, batch: int) -> float:
    """Weights that the kernel reads for a step: some of them once for several steps."""
    arrays = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in model.stack.packed()._asdict().items()}
    w = pack_weights(**arrays, batch=batch)
    every = sum(matrix.nbytes for matrix in (w.first, w.newest, w.mix, w.post1, w.post2))
    older = (w.older[0, :1].nbytes / w.spans).sum()
    return every + older + w.condition.nbytes / block_length(batch)


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sampling", "training"])
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=PRESETS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "sampling":
        sampling(arguments.presets, arguments.batches, arguments.turns)
    else:
        training(arguments.presets, arguments.turns)


if __name__ == "__main__":
    main()
