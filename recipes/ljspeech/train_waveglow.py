"""Train WaveGlow on speech: the clips that ship with waveflow, LJ Speech, or any folder of recordings."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from waveflow.audio import MelSpectrogram, mel_image, mel_picture, write_audio
from waveflow.cli import default_out, parse_arguments, run_command
from waveflow.data import Batches, SpeechSegments, WholeClips, download_ljspeech, find_clips, split_clips
from waveflow.errors import InputError
from waveflow.evaluation import Synthesizer, choose_temperature, mean_stoi, nats_per_sample
from waveflow.models import WaveGlow, read_config
from waveflow.threads import use_threads
from waveflow.training import Trainer, TrainerConfig

SAMPLES = Path(__file__).parents[2] / "samples" / "speech"


@dataclass(frozen=True)
class Arguments:
    """Train WaveGlow on speech; without any flag, a small one on the clips that ship, in minutes on a CPU.

    Args:
        data: LJ Speech folder, or any folder of audio files (default: the clips in samples/speech).
        download: Fetch LJ Speech (2.6 GB) into the folder of --data (default: data) and train on it.
        preset: Size of the model: tiny, small, squeeze, ljspeech, ljspeech-64 or ljspeech-512.
        steps: Optimizer steps in total.
        batch_size: Segments per step, on each process.
        segment: Samples of a training segment.
        learning_rate: Learning rate of Adam, after a linear warm-up (default: 4e-3, for the ljspeech presets 1e-4).
        memory: invert rebuilds activations in the backward pass: less memory, more work.
        out: Folder of the run (default: runs/waveglow-PRESET, with a number where that holds one).
        device: auto takes a CUDA GPU where there is one.
        threads: CPU threads of PyTorch. More help large batches only, and stall where other programs want the cores.
        precision: bf16-mixed is for GPUs.
        seed: Equal seeds give equal runs, byte for byte on a CPU.
        resume: Continue the run in --out (default: the last one).
        validate_every: Steps between evaluations on held-out clips; 0 for one before and one after training only.
        validate_clips: How many of them are used; 0 for all.
        save_every: Steps between checkpoints; 0 for one at the end only.
    """

    data: str | None = None
    download: bool = False
    preset: str = "tiny"
    steps: int = 3000
    batch_size: int = 2
    segment: int = 8192
    learning_rate: float | None = None
    memory: Literal["store", "invert"] = "store"
    out: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: int = 0
    resume: bool = False
    validate_every: int = 500
    validate_clips: int = 8
    save_every: int = 500


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    if args.preset not in WaveGlow.PRESETS:
        raise InputError(f"--preset expects one of {', '.join(WaveGlow.PRESETS)}, got {args.preset!r}")
    if args.learning_rate is None:
        args = replace(args, learning_rate=1e-4 if args.preset.startswith("ljspeech") else 4e-3)
    use_threads(args.threads)
    if args.validate_clips < 0:
        raise InputError(f"--validate-clips expects 0 or more, got {args.validate_clips}")
    data = Path(args.data or SAMPLES)
    if not args.download:
        find_clips(data)  # a wrong --data is said before anything is made
    trainer = Trainer(
        TrainerConfig(
            out=args.out or default_out(f"waveglow-{args.preset}", args.resume),
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            betas=(0.9, 0.99),
            warmup_steps=50,
            decay_after=2000,
            clip_norm=100.0,
            device=args.device,
            precision=args.precision,
            seed=args.seed,
            resume=args.resume,
            validate_every=args.validate_every,
            save_every=args.save_every,
        )
    )
    model = WaveGlow.from_preset(args.preset, memory=args.memory)
    if args.segment % model.config.group:
        raise InputError(f"--segment expects a multiple of {model.config.group} for {args.preset}, got {args.segment}")

    # Data: random segments with the noise that makes 16-bit samples continuous, and whole clips held out.
    if args.download:
        data = trainer.on_first(lambda: download_ljspeech(args.data or "data"))
    train_clips, held_out_clips = split_clips(find_clips(data))
    segments = SpeechSegments(train_clips, model.mel_config, args.segment, args.seed)
    held_out = WholeClips(held_out_clips[: args.validate_clips or None], model.mel_config)
    mel_of, rate = MelSpectrogram(model.mel_config), model.mel_config.sample_rate
    heard = [held_out[i] for i in range(min(2, len(held_out)))]
    if trainer.rank == 0:
        print(f"data: {data}, {len(segments)} clips to train on, {len(held_out)} held out to evaluate", flush=True)

    # Objective: the exact log-likelihood of the waveform given its mel, in nats per sample.
    def objective(model, batch):
        nats = model(batch["waveform"], batch["mel"]).mean() / batch["waveform"].shape[1]
        return {"loss": -nats, "nats_per_sample": nats.detach()}

    # For ActNorm: statistics of more segments than a step has, the same on every process.
    def initialize(model, batch):
        first = Batches(segments, 16, args.seed).batch(0)
        model.flow.initialize(first["waveform"][:, None].to(trainer.device), first["mel"].to(trainer.device))

    def validate(model):
        likelihood = nats_per_sample(model, held_out)
        return {"nats_per_sample": likelihood.nats_per_sample, "stoi": mean_stoi(model, heard, seed=args.seed)}

    def sample(model, log):
        for clip in heard:
            copy = Synthesizer(model, seed=args.seed)(clip["mel"]).waveform.clamp(-1, 1)
            name = clip["name"].replace("/", "_")
            panels = [("real", clip["mel"]), ("generated", mel_of(copy[None])[0])]
            write_audio(log.samples / f"{name}-generated.wav", copy, rate)
            write_audio(log.samples / f"{name}-real.wav", clip["waveform"], rate)
            mel_picture(log.samples / f"{name}.png", panels, model.mel_config)
            log.audio(f"generated/{name}", copy, rate)
            log.image(f"mels/{name}", mel_image(panels, model.mel_config))

    # The temperature of synthesis that comes with the model is the best for a few clips that it was trained on.
    few = WholeClips(segments.recordings.clips[:: -(-len(segments) // 4)], model.mel_config, progress=False)

    def finish(model):
        model.config = replace(model.config, temperature=choose_temperature(model, few, seed=args.seed))

    state = trainer.fit(
        model,
        objective,
        Batches(segments, args.batch_size, args.seed),
        validate=validate,
        sample=sample,
        initialize=initialize if model.config.actnorm else None,
        finish=finish,
        show=["nats_per_sample"],
    )

    if trainer.rank == 0:
        out, name = trainer.folder.path, heard[0]["name"].replace("/", "_")
        before, after = state.before, state.after
        print(
            f"{len(held_out)} held-out clips: {before['nats_per_sample']:.3f} -> {after['nats_per_sample']:.3f} "
            f"nats per sample, STOI {before['stoi']:.3f} -> {after['stoi']:.3f} (of 1), "
            f"temperature {read_config(out)[1]['temperature']:g}"
        )
        print(f"model: {out}   figures and sounds: tensorboard --logdir {out / 'logs'}")
        print(f"listen to {out / 'samples' / f'{name}-generated.wav'} (real: {name}-real.wav, mels: {name}.png)")


if __name__ == "__main__":
    sys.exit(run_command(main, "train_waveglow.py"))
