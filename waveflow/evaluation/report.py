"""The figures of an evaluation: means, JSON, a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from waveflow.evaluation.yardsticks import YARDSTICKS

MEAN_FIGURES = ("nats_per_sample", "stoi", "pesq", "mstft", "mcd", "f0_rmse", "vuv_f1", "real_time_factor")
"""The figures that every report has at its top level."""

COLUMNS = {
    "nats_per_sample": ("nats/sample", "{:.4f}"),
    "stoi": ("STOI", "{:.3f}"),
    "pesq": ("PESQ", "{:.2f}"),
    "mstft": ("M-STFT", "{:.3f}"),
    "mcd": ("MCD dB", "{:.2f}"),
    "f0_rmse": ("F0 RMSE Hz", "{:.1f}"),
    "vuv_f1": ("V/UV F1", "{:.3f}"),
    "real_time_factor": ("RTF", "{:.3f}"),
}
"""What tables show of a report: title and format of each figure."""


@dataclass(frozen=True)
class ClipFigures:
    """What was measured on one clip.

    Attributes:
        name: of the clip.
        samples: length of the clip, in whole hops.
        seconds: the same in seconds.
        nats: log-likelihood of all its samples.
        synthesis_seconds: what its copy took to make.
        metrics: what ``waveflow.audio.compare`` says of the copy.
        yardsticks: log-likelihood of all its samples under each of ``YARDSTICKS``; empty where not measured.
    """

    name: str
    samples: int
    seconds: float
    nats: float
    synthesis_seconds: float
    metrics: Mapping[str, float | None]
    yardsticks: Mapping[str, float] = field(default_factory=dict)

    def figures(self) -> dict[str, float | None]:
        """``MEAN_FIGURES`` of this clip, and further metrics."""
        return {
            "nats_per_sample": self.nats / self.samples,
            **self.metrics,
            "real_time_factor": self.synthesis_seconds / self.seconds,
        }


@dataclass(frozen=True)
class Report:
    """What was measured on a set of clips.

    Attributes:
        clips: one by one.
        exact: whether the likelihood is exact, not a lower bound.
    """

    clips: Sequence[ClipFigures]
    exact: bool

    def figures(self) -> dict[str, float | None]:
        """``MEAN_FIGURES`` over all clips, and further metrics.

        Likelihood and real-time factor (seconds of work per second of audio) are ratios of sums. Metrics are means over
        the clips that have them, None where none has.
        """
        clips = [clip.figures() for clip in self.clips]
        names = dict.fromkeys(name for figures in (MEAN_FIGURES, *clips) for name in figures)
        return {
            **{name: _mean([clip.get(name) for clip in clips]) for name in names},
            "nats_per_sample": sum(clip.nats for clip in self.clips) / sum(clip.samples for clip in self.clips),
            "real_time_factor": sum(c.synthesis_seconds for c in self.clips) / sum(c.seconds for c in self.clips),
        }

    def yardsticks(self) -> dict[str, float]:
        """Nats per sample of classical models over the same clips, by the names in ``YARDSTICKS``.

        Ratios of sums, as the model's own; a yardstick that a clip lacks is left out.
        """
        samples = sum(clip.samples for clip in self.clips)
        names = [name for name in YARDSTICKS if all(name in clip.yardsticks for clip in self.clips)]
        return {name: sum(clip.yardsticks[name] for clip in self.clips) / samples for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, ready for JSON: the means at the top, the clips below ``per_clip``."""
        return {
            **self.figures(),
            "yardsticks": self.yardsticks(),
            "exact": self.exact,
            "clips": len(self.clips),
            "seconds": sum(clip.seconds for clip in self.clips),
            "per_clip": [
                {
                    "name": clip.name,
                    "seconds": clip.seconds,
                    **clip.figures(),
                    "yardsticks": {name: nats / clip.samples for name, nats in clip.yardsticks.items()},
                }
                for clip in self.clips
            ],
        }

    def table(self) -> str:
        """A table with a line for each clip and one for the whole."""
        total = f"all {len(self.clips)}"
        rows = [["clip", "seconds", *(title for title, _ in COLUMNS.values())]]
        rows += [[clip.name, f"{clip.seconds:.2f}", *cells(clip.figures())] for clip in self.clips]
        rows += [[total, f"{sum(clip.seconds for clip in self.clips):.2f}", *cells(self.figures())]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def yardstick_table(self) -> str:
        """The nats per sample of classical models, a line each, and how to read them."""
        known = self.yardsticks()
        head = "without a model, same clips"
        width = max(map(len, (head, *YARDSTICKS.values())))
        rows = [f"{title:<{width}}  {_nats(known.get(name)):>11}" for name, title in YARDSTICKS.items()]
        return "\n".join(
            [
                f"{head:<{width}}  nats/sample",
                "-" * (width + 13),
                *rows,
                "An oracle reads its parameters off the samples that it scores.",
                "Nats per sample say little on near-silent clips, as synthetic ones often are.",
            ]
        )


def cells(figures: Mapping[str, float | None]) -> list[str]:
    """The texts of ``COLUMNS`` for these figures, a dash for each that is missing."""
    values = {name: figures.get(name) for name in COLUMNS}
    return ["-" if value is None else COLUMNS[name][1].format(value) for name, value in values.items()]


def _nats(value: float | None) -> str:
    return "-" if value is None else COLUMNS["nats_per_sample"][1].format(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
