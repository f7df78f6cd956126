"""Make neutral faces smile in the latent space of a trained flow, let a classifier judge, and blend faces."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from smile_classifier import SmileClassifier
from torch import Tensor

from waveflow.atomic import write_whole
from waveflow.cli import parse_arguments, run_command
from waveflow.cli.loading import check_seed, choose_device
from waveflow.data import Images, ImageSet, load_images
from waveflow.errors import InputError
from waveflow.evaluation.image_likelihood import image_likelihood_of
from waveflow.images import AttributeVector, attribute_vector, interpolate, manipulate, save_grid, spherical
from waveflow.models import ImageFlow
from waveflow.threads import use_threads
from waveflow.training.image_data import some
from waveflow.training.image_grids import draw

_DRAWN = 256  # faces of the model's own, of which the smiling ones are counted


@dataclass(frozen=True)
class Arguments:
    """Edit faces that were kept out of training; nothing is trained but the classifier that judges.

    Args:
        model: Folder of a run of train_glow.py on the same faces.
        path: File or folder of the faces, faces_smile.npz.
        strengths: How often the vector from neutral to smiling is added, as a list such as '[0, 0.5, 1]'; negative
            ones take a smile away.
        faces: How many held-out neutral faces are edited; 0 for all.
        shown: How many of them the pictures show.
        temperature: Of the faces that the model draws, which are edited and blended likewise.
        out: Folder for figures and pictures (default: edit in the folder of the model).
        batch_size: Images at a time.
        device: auto takes a CUDA GPU where there is one.
        threads: CPU threads of PyTorch.
        seed: Of the classifier's choice of faces and of the control, a direction at random.
    """

    model: str = "runs/glow-faces"
    path: str | None = None
    strengths: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
    faces: int = 0
    shown: int = 8
    temperature: float = 0.7
    out: str | None = None
    batch_size: int = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 1
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv)
    _check(args)
    use_threads(args.threads)
    model = ImageFlow.from_pretrained(args.model, choose_device(args.device))
    if model.config.channels != 1 or model.config.height != model.config.width or model.config.classes:
        got = f"{'x'.join(map(str, model.image_shape))} and {model.config.classes} classes"
        raise InputError(f"{args.model}: expected a model of square grey faces without classes, got {got}")
    faces = load_images("faces", args.path, size=model.config.height)
    _require_both_kinds(faces)
    drawn = draw(model, max(_DRAWN, 2 * args.shown), args.temperature, args.seed)
    out = Path(args.out or Path(args.model) / "edit")
    out.mkdir(parents=True, exist_ok=True)

    # The judge first: what it says of real faces that it has not seen is the measure of what it says of edited ones.
    judge = SmileClassifier.train(faces.train, args.seed)
    test = {kind: faces.test.take(faces.test.labels == label) for label, kind in enumerate(faces.classes)}
    right = {kind: _share(judge.smiling(part.images) == (kind == "smiling")) for kind, part in test.items()}
    accuracy = sum(right.values()) / len(right)
    print(f"classifier: {accuracy:.1%} right on {len(faces.test):,} held-out faces, both kinds counting alike")

    # The vector: how the latents of smiling training faces differ from those of neutral ones.
    smile = attribute_vector(model, faces.train.images, faces.train.labels, batch_size=args.batch_size)
    smile.save(out / "smile.safetensors")
    generator = torch.Generator().manual_seed(args.seed)
    noise = torch.randn(smile.vector.shape, generator=generator)
    control = AttributeVector(noise * (smile.vector.norm() / noise.norm()), smile.model, smile.fingerprint)

    neutral = some(test["neutral"], args.faces).images
    grids, rows = [], []
    for strength in args.strengths:
        images, whole = edit(model, neutral, smile, strength, args.batch_size)
        others, others_whole = edit(model, neutral, control, strength, args.batch_size)
        row = {
            "strength": strength,
            "smiling": _share(judge.smiling(images) & whole),
            "smiling_in_a_random_direction": _share(judge.smiling(others) & others_whole),
            "broken": int((~whole).sum()),
            **_bits(model, images[whole], args),
        }
        print(
            f"strength {strength:g}: {row['smiling']:.1%} of {len(images):,} neutral faces smile "
            f"({row['smiling_in_a_random_direction']:.1%} in a random direction)"
            + (f", {row['bits_per_dim']:.3f} bits/dim" if row["bits_per_dim"] is not None else "")
            + (f", {row['broken']} could not be decoded" if row["broken"] else ""),
            flush=True,
        )
        grids.append(images)
        rows.append(row)

    shown = min(args.shown, len(neutral) // 2)
    places = torch.arange(2 * shown) * len(neutral) // (2 * shown)
    _save_by_rows(out / "smile.png", torch.stack(grids)[:, places[:shown]])
    blend = interpolate(model, neutral[places[:shown]], neutral[places[shown:]], steps=7)
    _save_by_rows(out / "blend.png", blend)

    grids, drawn_smiling = [], []
    for strength in args.strengths:
        images, whole = edit(model, drawn, smile, strength, args.batch_size)
        grids.append(images)
        drawn_smiling.append(_share(judge.smiling(images) & whole))
    shares = ", ".join(f"{share:.1%} at {s:g}" for s, share in zip(args.strengths, drawn_smiling, strict=True))
    print(f"of {len(drawn)} faces drawn at temperature {args.temperature:g} smile {shares}")
    _save_by_rows(out / "drawn-smile.png", torch.stack(grids)[:, : args.shown])
    halves = drawn[: args.shown], drawn[args.shown : 2 * args.shown]
    _save_by_rows(out / "drawn-blend.png", interpolate(model, *halves, steps=7, between=spherical))
    content = {
        "note": faces.note,
        "vector_from": {kind: int((faces.train.labels == i).sum()) for i, kind in enumerate(faces.classes)},
        "classifier": {
            "what": "PCA of 100 components, support vector machine",
            "trained_on": judge.trained_on,
            "tested_on": len(faces.test),
            "balanced_accuracy": accuracy,
            **{f"right_on_{kind}": share for kind, share in right.items()},
        },
        "real": {kind: _bits(model, part.images, args) for kind, part in test.items()},
        "blended_half": _bits(model, blend[len(blend) // 2], args),
        "edited_faces": len(neutral),
        "edited": rows,
        "drawn": {"temperature": args.temperature, "faces": len(drawn), "smiling": drawn_smiling},
    }
    write_whole(out / "edit.json", (json.dumps(content, indent=2) + "\n").encode())
    print(f"vector, figures, pictures: {out} (photographs of people, not for publication, but for those named drawn-*)")


def edit(
    model: ImageFlow, images: Tensor, vector: AttributeVector, strength: float, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Edited images, and which of them could be decoded: a latent too far from all others leads nowhere; it is black.

    Returns:
        uint8 (N, 1, H, W) and bool (N,).
    """
    try:
        edited = manipulate(model, images, vector, strength, batch_size=batch_size)
        return edited, torch.ones(len(images), dtype=torch.bool)
    except FloatingPointError:
        if len(images) == 1:
            return torch.zeros_like(images), torch.zeros(1, dtype=torch.bool)
        halves = [edit(model, half, vector, strength, batch_size) for half in images.split(-(-len(images) // 2))]
        edited, whole = zip(*halves, strict=True)
        return torch.cat(edited), torch.cat(whole)


def _check(args: Arguments) -> None:
    for name, least in {"batch_size": 1, "faces": 0, "shown": 1}.items():
        if getattr(args, name) < least:
            raise InputError(f"--{name.replace('_', '-')} expects at least {least}, got {getattr(args, name)}")
    if not 0 <= args.temperature < math.inf:
        raise InputError(f"--temperature expects at least 0, got {args.temperature}")
    if args.faces == 1:
        raise InputError("--faces expects 0 for all, or at least 2, got 1")
    if not args.strengths:
        raise InputError("--strengths expects at least one")
    check_seed(args.seed)


def _require_both_kinds(faces: ImageSet) -> None:
    """Refuse faces that the judge cannot learn from or be tested on: two of each kind are the least."""
    counts = [
        {kind: int((part.labels == label).sum()) for label, kind in enumerate(faces.classes)}
        for part in (faces.train, faces.test)
    ]
    if min(min(part.values()) for part in counts) < 2:
        got = " and ".join(", ".join(f"{count} {kind}" for kind, count in part.items()) for part in counts)
        raise InputError(
            f"faces: expected neutral and smiling faces in training and test, at least 2 of each, got {got}"
        )


def _share(marks: Tensor) -> float:
    return marks.double().mean().item()


def _bits(model: ImageFlow, images: Tensor, args: Arguments) -> dict[str, Any]:
    if len(images) < 2:
        return {"bits_per_dim": None, "standard_error": None}
    found = image_likelihood_of(model, Images(images), args.batch_size, args.seed)
    return {"bits_per_dim": found.bits_per_dim, "standard_error": found.standard_error}


def _save_by_rows(path: Path, images: Tensor) -> None:
    """images: (columns, rows, C, H, W); a face a row."""
    zoom = max(1, 96 // images.shape[-1])
    save_grid(path, images.transpose(0, 1).flatten(0, 1), columns=len(images), zoom=zoom, gap=2)


if __name__ == "__main__":
    sys.exit(run_command(main, "edit.py"))
