"""WaveGlow on a CPU: synthesis, a training step, memory, inverse error; beside a plain peer in the same run.

    python benchmarks/waveglow.py synthesis        # CPU seconds per second of audio, and the ratio to the peer
    python benchmarks/waveglow.py training         # CPU seconds and peak memory of a step, and the ratio to the peer
    python benchmarks/waveglow.py memory           # peak memory of a step against depth, stored and inverted
    python benchmarks/waveglow.py inverse          # max |x - f^-1(f(x))| of the whole model in float32

One thread. CPU seconds are the process's own time, the median of several runs; every figure of memory is the peak
resident size of a process of its own. "tight" is the peak with an allocator that gives freed memory back at once
(glibc's MALLOC_TRIM_THRESHOLD_): what is alive, without what fragmentation adds.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
from plain_waveglow import PlainWaveGlow

from waveflow.models import WaveGlow

RATE, HOP = 22050, 256
FRAMES = 86  # 22,016 samples: a second


def cpu_seconds(call, repeats):
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)


def perturb(model, std=0.02):
    """Away from the start, where couplings do nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for coupling in model.couplings():
            weight = coupling.conditioner.output.weight
            weight.copy_(std * torch.randn(weight.shape, generator=generator))
    return model


def synthesis(repeats):
    mel = torch.randn(1, 80, FRAMES, generator=torch.Generator().manual_seed(0)) - 5
    z = 0.6 * torch.randn(1, 8, FRAMES * HOP // 8, generator=torch.Generator().manual_seed(1))
    seconds = FRAMES * HOP / RATE
    peer = PlainWaveGlow()
    # The peer and ours by turns, so that both see the same neighbours on the machine.
    ours = perturb(WaveGlow.from_preset("ljspeech"))
    variants = {
        "plain peer, float32": lambda: peer.vocode(mel, z),
        "ljspeech, float32": None,
        "plain peer, bfloat16 networks": None,
        "ljspeech, bfloat16 networks": None,
    }
    fast = {dtype: ours.for_inference(dtype) for dtype in (torch.float32, torch.bfloat16)}
    low = PlainWaveGlow()
    low.networks.bfloat16()
    variants["ljspeech, float32"] = lambda: fast[torch.float32].vocode(mel, z=z)
    variants["plain peer, bfloat16 networks"] = lambda: low.vocode(mel, z, torch.bfloat16)
    variants["ljspeech, bfloat16 networks"] = lambda: fast[torch.bfloat16].vocode(mel, z=z)
    times = {name: [] for name in variants}
    for call in variants.values():
        call()
    for _ in range(repeats):
        for name, call in variants.items():
            start = time.process_time()
            call()
            times[name].append((time.process_time() - start) / seconds)
    base = statistics.median(times["plain peer, float32"])
    print(f"{'':34}{'CPU s / s audio':>16}{'peer / this':>14}")
    for name, values in times.items():
        value = statistics.median(values)
        print(f"{name:34}{value:16.2f}{base / value:14.2f}")
    for preset in ("squeeze", "tiny", "small"):
        model = perturb(WaveGlow.from_preset(preset))
        for dtype in (torch.float32, torch.bfloat16):
            fast_model = model.for_inference(dtype)
            value = cpu_seconds(lambda m=fast_model: m.vocode(mel, temperature=0.6), 2 * repeats) / seconds
            print(f"{preset + ', ' + str(dtype)[6:]:34}{value:16.3f}{base / value:14.1f}")
    a, b = fast[torch.float32].vocode(mel, z=z), fast[torch.bfloat16].vocode(mel, z=z)
    print(f"signal to difference, bfloat16 against float32: {10 * torch.log10(a.var() / (a - b).var()):.0f} dB")


def step(which, flows=12, memory="store", repeats=3):
    """One training step in this process: CPU seconds, peak memory, and the peak before the step."""
    if which == "nothing":
        return {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(1, 16000, generator=generator)
    mel = torch.randn(1, 80, 63, generator=generator) - 5
    if which == "peer":
        model = PlainWaveGlow(normed=True)
    else:
        shape = {} if flows == 12 else {"flows": flows, "early_every": 0}
        model = perturb(WaveGlow.from_preset("ljspeech", memory=memory, **shape))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def call():
        model.zero_grad()
        (-model.log_prob(waveform, mel).mean() / 16000).backward()

    seconds = cpu_seconds(call, repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parameters = sum(p.numel() for p in model.parameters())
    return {"cpu_seconds": seconds, "peak_mib": peak / 1024, "before_mib": before / 1024, "parameters": parameters}


def in_own_process(*arguments, tight=False):
    command = [sys.executable, __file__, "step", *map(str, arguments)]
    environment = os.environ | ({"MALLOC_TRIM_THRESHOLD_": "262144"} if tight else {})
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def training(repeats):
    print(f"{'forward + backward, 16,000 samples':36}{'CPU s':>8}{'peer / this':>13}{'peak MiB':>10}{'tight':>8}")
    imports = in_own_process("nothing", 0, "store", 0)["peak_mib"]
    peer = None
    for name, arguments in {
        "plain peer": ("peer", 12, "store"),
        'ljspeech, memory="store"': ("ours", 12, "store"),
        'ljspeech, memory="invert"': ("ours", 12, "invert"),
    }.items():
        found = in_own_process(*arguments, repeats)
        tight = in_own_process(*arguments, 1, tight=True)["peak_mib"]
        seconds, peak = found["cpu_seconds"], found["peak_mib"]
        peer = peer or seconds
        print(f"{name:36}{seconds:8.2f}{peer / seconds:13.2f}{peak:10.0f}{tight:8.0f}")
    print(f"(of the peak, {imports:.0f} MiB are there once torch and waveflow are imported)")


def memory(repeats):
    print("ljspeech without early outputs, one step of 16,000 samples; tight MiB above the model and its gradients")
    print(f"{'steps':>6}{'store':>10}{'invert':>10}")
    for flows in (8, 16, 32):
        row = []
        for mode in ("store", "invert"):
            found = in_own_process("ours", flows, mode, 1, tight=True)
            gradients = 4 * found["parameters"] / 2**20
            row.append(found["peak_mib"] - found["before_mib"] - gradients)
        print(f"{flows:6}{row[0]:10.0f}{row[1]:10.0f}")


def inverse(repeats):
    waveform = 0.1 * torch.randn(1, 65536, generator=torch.Generator().manual_seed(0))
    mel = torch.randn(1, 80, 256, generator=torch.Generator().manual_seed(1)) - 5
    for preset in ("ljspeech", "small", "tiny", "squeeze"):
        model = perturb(WaveGlow.from_preset(preset))
        print(f"{preset:12}{model.flow.inverse_error(waveform[:, None], mel).item():.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["synthesis", "training", "memory", "inverse", "step"])
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "step":
        which, flows, mode, repeats = arguments.rest
        print(json.dumps(step(which, int(flows), mode, int(repeats))))
    else:
        {"synthesis": synthesis, "training": training, "memory": memory, "inverse": inverse}[arguments.what](
            arguments.repeats
        )


if __name__ == "__main__":
    main()
