"""The card of a trained vocoder: what it is, what made it, what was measured, where it ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from waveflow.models import VocoderModel

_FIGURES = {
    "nats_per_sample": ("nats per sample", "{:.3f}"),
    "stoi": ("STOI", "{:.3f}"),
    "pesq": ("PESQ, wide band", "{:.2f}"),
    "mstft": ("M-STFT", "{:.3f}"),
    "mcd": ("MCD, dB", "{:.2f}"),
    "f0_rmse": ("F0 RMSE, Hz", "{:.1f}"),
    "vuv_f1": ("F1 of voiced frames", "{:.3f}"),
    "real_time_factor": ("seconds of work per second of audio", "{:.3f}"),
}

_MATCHED = """
Matched means: the spectrum of a copy is scaled, phases kept, until its mel is nearly the one that was asked for
(`waveflow.audio.MelMatcher`; `match=0` leaves it out). That would do much for noise, too, so how good the model is, the
other columns say.
"""


@dataclass(frozen=True)
class Training:
    """What made the weights.

    Attributes:
        clips: names of the clips trained on.
        minutes: their length together.
        steps: of the optimizer.
        batch: segments a step.
        segment: samples of a segment.
        settings: further settings of the trainer.
        hardware: in words.
        hours: that the training processes ran.
        rights: in the recordings, in words.
    """

    clips: Sequence[str]
    minutes: float
    steps: int
    batch: int
    segment: int
    settings: Mapping[str, Any]
    hardware: str
    hours: float
    rights: str

    @property
    def samples(self) -> int:
        """Samples trained on, each time one was seen."""
        return self.steps * self.batch * self.segment


@dataclass(frozen=True)
class Measured:
    """Figures over the held-out clips.

    Attributes:
        clips: names of the clips.
        seconds: their length together.
        trained: means of the weights as they were trained, copies not matched to their mels.
        plain: likewise of the weights as they are in the folder; None where ``shipped`` does not match either.
        shipped: means of the model in the folder, by its own settings.
        device: where.
        exact: whether the likelihood is exact, not a lower bound.
    """

    clips: Sequence[str]
    seconds: float
    trained: Mapping[str, float | None]
    plain: Mapping[str, float | None] | None
    shipped: Mapping[str, float | None]
    device: str
    exact: bool


def model_card(
    name: str, model: VocoderModel, size: int, training: Training, measured: Measured, samples: Sequence[str]
) -> str:
    """The card in Markdown.

    Args:
        name: of the folder.
        model: what is in it.
        size: bytes of the weights.
        training: what made it.
        measured: what was measured.
        samples: names of the clips in ``samples/``.
    """
    kind, mel = type(model).__name__, model.mel_config
    preset = next((p for p, fields in model.PRESETS.items() if _alike(model, fields)), None)
    count = sum(parameter.numel() for parameter in model.parameters())
    made = f"preset `{preset}`" if preset else "a configuration of its own"
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in training.settings.items())
    bound = "" if measured.exact else " (a lower bound)"
    columns = {"as trained": measured.trained, "as shipped": measured.shipped}
    if measured.plain is not None:
        rounds = model.config.match
        columns = {"as trained, not matched": measured.trained, "as shipped, not matched": measured.plain}
        columns[f"as shipped, {rounds} round{'s' * (rounds > 1)}"] = measured.shipped
    rows = "\n".join(
        f"| {title} |" + "".join(f" {_cell(figures.get(key), form)} |" for figures in columns.values())
        for key, (title, form) in _FIGURES.items()
    )
    heads = "|".join(f" {name} " for name in columns)
    listed = "\n".join(f"| [{clip}](samples/{clip}.flac) | [mels](samples/{clip}.png) |" for clip in samples)
    return f"""# {name}

A {kind} ({made}, {count:,} parameters) that turns mels into speech.

    waveflow vocode clip.wav --model {name}

```python
from waveflow.models import load_vocoder

waveform = load_vocoder("{name}").vocode(mel)  # (B, {mel.n_mels}, frames) -> (B, frames * {mel.hop_length})
```

- Mel: {mel.describe()}.
- Temperature by default: {model.config.temperature:g}; rounds of matching the mel: {model.config.match}.
- Weights: `model.safetensors`, {size / 1e6:.1f} MB, parameters rounded to bfloat16; they are loaded as float32.

## Training

| | |
| --- | --- |
| data | {len(training.clips)} clips, {training.minutes:.1f} minutes, {training.clips[0]} to {training.clips[-1]} |
| steps | {training.steps:,} of {training.batch} segments of {training.segment:,} samples |
| samples trained on | {training.samples / 1e6:,.1f} million: every one {_times(model, training):.1f} times |
| settings | {settings} |
| hardware | {training.hardware} |
| hours | {training.hours:.2f} |

The weights are the average that the run keeps. Curves: [training.csv](training.csv).

![Nats per sample and STOI while training](training.png)

## Figures

On {len(measured.clips)} clips that it was not trained on, {measured.clips[0]} to {measured.clips[-1]}
({measured.seconds:.0f} s), whole; copies at the default temperature; likelihood{bound} with the Gaussian constant and
uniform noise of one 16-bit step. Measured by the script that made this folder, on {measured.device}.

| |{heads}|
| --- |{" --- |" * len(columns)}
{rows}
{_MATCHED if measured.plain is not None else ""}
Clip by clip: [figures.json](figures.json).

## What it sounds like

Held-out clips, made from the mels of the recordings, which are not here.

| generated | recorded and generated |
| --- | --- |
{listed}

## Limits

It has heard {training.minutes:.0f} minutes of one voice. Other voices, other rooms, singing and music were not in its
training, and no figure above speaks for them. It turns mels into sound: it does not read text.

## Rights

{training.rights}
The weights and the sounds here are under the licence of this repository, MIT.
"""


def _alike(model: VocoderModel, fields: Mapping[str, Any]) -> bool:
    """Whether the model has this preset's configuration; temperature and matching are chosen by each run."""
    own = model.config
    apart = {"temperature": own.temperature, "match": own.match, "memory": getattr(own, "memory", None)}
    return model.Config(**{**fields, **{k: v for k, v in apart.items() if v is not None}}) == own


def _times(model: VocoderModel, training: Training) -> float:
    return training.samples / (60 * training.minutes * model.mel_config.sample_rate)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
