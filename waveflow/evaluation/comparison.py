"""Several vocoders on the same clips: one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from waveflow.audio import compare
from waveflow.data import WholeClips
from waveflow.errors import InputError
from waveflow.evaluation.report import COLUMNS, Report, cells

RECORDINGS = "recordings"
"""The name under which the clips themselves stand beside the models."""


@dataclass(frozen=True)
class Contestant:
    """One vocoder of a comparison.

    Attributes:
        name: unique among them.
        source: where it came from.
        kind: its class, by name.
        parameters: how many it was trained with.
        temperature: of its synthesis.
        report: what was measured, None where that failed, or was not come to.
        failure: why it failed.
    """

    name: str
    source: str
    kind: str
    parameters: int
    temperature: float
    report: Report | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What :func:`~waveflow.evaluation.evaluate` says of several vocoders about the same clips.

    Attributes:
        contestants: in the order given.
        ceiling: what the metrics say of the recordings themselves.
        settings: what all were measured with, for the record: device, precision, data, ...
    """

    contestants: Sequence[Contestant]
    ceiling: Mapping[str, float | None]
    settings: Mapping[str, Any]

    @property
    def measured(self) -> list[Contestant]:
        """Those that have a report, the one with most nats per sample first."""
        known = [contestant for contestant in self.contestants if contestant.report is not None]
        return sorted(known, key=lambda contestant: -contestant.report.figures()["nats_per_sample"])

    def rows(self) -> list[list[str]]:
        """The table: titles, a row for each model, the best first and those without a report last, the recordings."""
        titles = ["model", "kind", "parameters", *(title for title, _ in COLUMNS.values())]
        without = [contestant for contestant in self.contestants if contestant.report is None]
        rows = [self._row(contestant) for contestant in (*self.measured, *without)]
        return [titles, *rows, [RECORDINGS, "ground truth", "-", *cells(self.ceiling)]]

    def markdown(self) -> str:
        """The table in Markdown, in columns that line up as plain text too, and how to read it."""
        rows = [[text.replace("|", "\\|") for text in row] for row in self.rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "| "
            + " | ".join(t.rjust(w) if i > 1 else t.ljust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True)))
            + " |"
            for row in rows
        ]
        rule = "| " + " | ".join("-" * (w - 1) + ":" if i > 1 else "-" * w for i, w in enumerate(widths)) + " |"
        return "\n".join([lines[0], rule, *lines[1:], "", *self.notes()])

    def notes(self) -> list[str]:
        """What has to be said below the table, a line each."""
        notes = [
            "nats/sample: log-density on [-1, 1], uniform noise of one 16-bit step on the same whole clips for every "
            "model; higher is better.",
            f"RTF: seconds of work per second of audio on {self.settings.get('device', 'this device')}.",
        ]
        if any(not contestant.report.exact for contestant in self.measured):
            notes.append(">= marks a lower bound; the others are exact.")
        if self.measured:
            known = self.measured[0].report.yardsticks()
            said = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in known.items())
            notes.append(f"Without a model, nats/sample: {said}.")
        notes += [f"{c.name} failed: {c.failure}" for c in self.contestants if c.failure is not None]
        if left := [c.name for c in self.contestants if c.report is None and c.failure is None]:
            notes.append(f"Interrupted before these were measured: {', '.join(left)}.")
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            **self.settings,
            RECORDINGS: dict(self.ceiling),
            "models": [
                {
                    "name": contestant.name,
                    "source": contestant.source,
                    "kind": contestant.kind,
                    "parameters": contestant.parameters,
                    "temperature": contestant.temperature,
                    "failure": contestant.failure,
                    **({} if contestant.report is None else contestant.report.to_dict()),
                }
                for contestant in self.contestants
            ],
        }

    def _row(self, contestant: Contestant) -> list[str]:
        figures = {} if contestant.report is None else contestant.report.figures()
        texts = dict(zip(COLUMNS, cells(figures), strict=True))
        if contestant.report is None:
            texts["nats_per_sample"] = "-" if contestant.failure is None else "failed"
        elif not contestant.report.exact:
            texts["nats_per_sample"] = f">= {texts['nats_per_sample']}"
        return [contestant.name, contestant.kind, f"{contestant.parameters:,}", *texts.values()]


def ceiling(clips: WholeClips) -> dict[str, float | None]:
    """Means of what the metrics say of recordings held against themselves: the best that a copy can reach.

    A clip too short for the metrics is left out.
    """
    found: dict[str, list[float]] = {}
    for clip in clips:
        try:
            metrics = compare(clip["waveform"], clip["waveform"], clips.mel_config.sample_rate)
        except InputError:
            continue
        for name, value in metrics.items():
            found.setdefault(name, []).extend([] if value is None else [value])
    return {name: sum(values) / len(values) if values else None for name, values in found.items()}
