"""Students of Parallel WaveNet: synthesis and a training step, beside a plain writing of them, and beside teachers.

    python benchmarks/student.py synthesis     # CPU seconds per second of audio; ratios to the peer and to the teacher
    python benchmarks/student.py training      # CPU seconds of a step, student and teacher, 16,000 samples

One thread, random weights. CPU seconds are the process's own time, the least of several turns in which all variants see
the same neighbours. Teachers draw by the compiled loop.
"""

import argparse
import time

import torch
from plain_student import PlainDistillation, PlainStudent

from waveflow.distillation import StudentObjective, TermWeights, VocoderStudent
from waveflow.models import ParallelWaveNet, WaveNet

RATE, HOP = 22050, 256
FRAMES = 86  # 22,016 samples: a second
TEACHERS = {"clarinet": "gaussian", "small": "small", "tiny": "tiny"}


def by_turns(variants, repeats):
    """The least CPU seconds of each call."""
    for call in variants.values():
        call()
    least = dict.fromkeys(variants, float("inf"))
    for _ in range(repeats):
        for name, call in variants.items():
            start = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - start)
    return least


def perturb(model, std=0.01):
    """Away from the start, where the networks say nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("output.weight"):
                weight.copy_(std * torch.randn(weight.shape, generator=generator))
    return model


def mel_of(frames):
    return torch.randn(1, 80, frames, generator=torch.Generator().manual_seed(0)) - 5


def synthesis(repeats):
    mel, z = mel_of(FRAMES), torch.randn(1, 1, FRAMES * HOP, generator=torch.Generator().manual_seed(1))
    peer = PlainStudent()
    variants = {"plain peer, float32": lambda: peer.vocode(mel, z)}
    drawn = {}
    for preset in ("clarinet", "parallel-wavenet", "small", "tiny"):
        model = perturb(ParallelWaveNet.from_preset(preset))
        for dtype in (torch.float32, torch.bfloat16):
            fast = model.for_inference(dtype)
            name = f"{preset}, {str(dtype)[6:]}"
            variants[name] = lambda fast=fast: fast.vocode(mel, z=z)
            drawn[name] = variants[name]()
    for preset in ("gaussian", "small", "tiny"):
        teacher = perturb(WaveNet.from_preset(preset)).for_inference()
        variants[f"teacher {preset}, kernel"] = lambda teacher=teacher: teacher.vocode(mel, z=z, method="kernel")
    seconds = {name: value * RATE / (FRAMES * HOP) for name, value in by_turns(variants, repeats).items()}
    base = seconds["plain peer, float32"]
    print(f"{'':34}{'CPU s / s audio':>16}{'peer / this':>14}")
    for name, value in seconds.items():
        print(f"{name:34}{value:16.3f}{base / value:14.2f}")
    for student, teacher in TEACHERS.items():
        for dtype in ("float32", "bfloat16"):
            ratio = seconds[f"teacher {teacher}, kernel"] / seconds[f"{student}, {dtype}"]
            print(f"student {student} in {dtype} is {ratio:.1f} times as fast as teacher {teacher}")
    exact, low = drawn["clarinet, float32"], drawn["clarinet, bfloat16"]
    print(
        f"signal to difference, bfloat16 against float32: {10 * torch.log10(exact.var() / (exact - low).var()):.0f} dB"
    )


def training(repeats):
    waveform = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    mel = mel_of(63)
    peer = PlainDistillation()

    def plain():
        peer.zero_grad()
        peer(waveform, mel).backward()

    def step(preset, teacher):
        source = perturb(WaveNet.from_preset(teacher)).requires_grad_(False)
        student = perturb(ParallelWaveNet.from_teacher(source, preset))
        objective = StudentObjective(source.for_inference(), student, TermWeights(), floor=-7.0)
        wrapped = VocoderStudent(student)

        def call():
            student.zero_grad()
            objective(wrapped, {"waveform": waveform, "mel": mel})["loss"].backward()

        return call

    variants = {"plain peer": plain} | {f"{s} of {t}": step(s, t) for s, t in TEACHERS.items()}
    found = by_turns(variants, repeats)
    print(f"{'student and teacher, 16,000 samples':36}{'CPU s':>8}{'peer / this':>13}")
    for name, seconds in found.items():
        print(f"{name:36}{seconds:8.2f}{found['plain peer'] / seconds:13.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["synthesis", "training"])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    {"synthesis": synthesis, "training": training}[arguments.what](arguments.repeats)


if __name__ == "__main__":
    main()
