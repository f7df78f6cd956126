"""WaveFlow: synthesis and a training step on one CPU thread, beside a plain peer in the same run.

    python benchmarks/waveflow_model.py synthesis  # CPU seconds per second of audio, and the ratio to the peer
    python benchmarks/waveflow_model.py training    # CPU seconds of a step of 16,000 samples, and the ratio to the peer
    python benchmarks/waveflow_model.py inverse     # max |x - f^-1(f(x))| of the whole model in float32

CPU seconds are the process's own time, peer and ours measured by turns, the least of several runs: neighbours on the
machine can only add to it.
"""

import argparse
import time

import torch
from plain_waveflow import PlainWaveFlow

from waveflow.models import WaveFlow

RATE, HOP = 22050, 256
FRAMES = 86  # 22,016 samples: a second


def by_turns(variants, repeats):
    """The least CPU seconds of each of these calls."""
    for call in variants.values():
        call()
    times = {name: [] for name in variants}
    for _ in range(repeats):
        for name, call in variants.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: min(values) for name, values in times.items()}


def perturb(model, std=0.02):
    """Away from the start, where flows do nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for flow in model.flows():
            weight = flow.conditioner.output.weight
            weight.copy_(std * torch.randn(weight.shape, generator=generator))
    return model


def mel_of(frames, seed=0):
    return torch.randn(1, 80, frames, generator=torch.Generator().manual_seed(seed)) - 5


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def synthesis(repeats):
    mel, seconds = mel_of(FRAMES), FRAMES * HOP / RATE
    peer, low = PlainWaveFlow(), PlainWaveFlow()
    low.networks.bfloat16()
    sound = noise(1, FRAMES * HOP)
    variants = {
        "plain peer, float32": lambda: peer.vocode(mel, sound),
        "plain peer, bfloat16 networks": lambda: low.vocode(mel, sound, torch.bfloat16),
    }
    fast = {}
    for preset in ("ljspeech-64", "small", "tiny"):
        model = perturb(WaveFlow.from_preset(preset))
        z = noise(1, *model.latent_shape(FRAMES))
        for dtype in (torch.float32, torch.bfloat16):
            name = f"{preset}, {str(dtype)[6:]}"
            fast[name] = model.for_inference(dtype)
            variants[name] = lambda m=fast[name], z=z: m.vocode(mel, z=z)
    times = by_turns(variants, repeats)
    base = times["plain peer, float32"]
    print(f"{'':34}{'CPU s / s audio':>16}{'peer / this':>14}")
    for name, value in times.items():
        print(f"{name:34}{value / seconds:16.3f}{base / value:14.2f}")
    a, b = (variants[f"ljspeech-64, {dtype}"]() for dtype in ("float32", "bfloat16"))
    print(f"signal to difference, bfloat16 against float32: {10 * torch.log10(a.var() / (a - b).var()):.0f} dB")


def training(repeats):
    mel, waveform = mel_of(63), 0.1 * noise(1, 16000)
    models = {
        "plain peer": PlainWaveFlow(normed=True),
        'ljspeech-64, memory="store"': perturb(WaveFlow.from_preset("ljspeech-64")),
        'ljspeech-64, memory="invert"': perturb(WaveFlow.from_preset("ljspeech-64", memory="invert")),
    }

    def step(model):
        model.zero_grad()
        (-model.log_prob(waveform, mel).mean() / 16000).backward()

    variants = {name: lambda m=model: step(m) for name, model in models.items()}
    times = by_turns(variants, repeats)
    print(f"{'forward + backward, 16,000 samples':36}{'CPU s':>8}{'peer / this':>13}")
    for name, value in times.items():
        print(f"{name:36}{value:8.2f}{times['plain peer'] / value:13.2f}")


def inverse(repeats):
    waveform = 0.1 * noise(1, 65536)
    for preset in ("ljspeech-64", "small", "tiny"):
        model = perturb(WaveFlow.from_preset(preset))
        print(f"{preset:12}{model.flow.inverse_error(waveform[:, None], mel_of(256)).item():.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = {"synthesis": synthesis, "training": training, "inverse": inverse}
    parser.add_argument("what", choices=what)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    what[arguments.what](arguments.repeats)


if __name__ == "__main__":
    main()
