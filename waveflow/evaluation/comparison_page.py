"""A page to hear vocoders side by side: players and mels beside the figures, in one file without scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from waveflow.evaluation.comparison import RECORDINGS, Comparison
from waveflow.evaluation.report import ClipFigures

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
.wide { overflow-x: auto; }
.clip { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(40rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; border: 1px solid #ddd; border-radius: .4rem; }
figcaption span { color: #666; font-size: 85%; }
audio, img { width: 100%; margin-top: .4rem; }
.note, .text { color: #555; margin: .2rem 0; }
"""


@dataclass(frozen=True)
class HeardClip:
    """A clip as the page shows it.

    Attributes:
        name: of the clip.
        file: name of its files, without ending, in the folder of each model and of the recordings.
        text: what is said, None where unknown.
    """

    name: str
    file: str
    text: str | None = None


def comparison_page(comparison: Comparison, clips: Sequence[HeardClip]) -> str:
    """The page as HTML, which needs nothing but the sounds and pictures beside it: ``MODEL/CLIP.wav`` and ``.png``.

    Args:
        comparison: the figures.
        clips: in the order of the page.
    """
    titles, *rows = comparison.rows()
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    notes = "\n".join(f'<p class="note">{escape(note)}</p>' for note in comparison.notes())
    measured = {c.name: {clip.name: clip for clip in c.report.clips} for c in comparison.measured}
    sections = "\n".join(_section(clip, measured) for clip in clips)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(", ".join(contestant.name for contestant in comparison.contestants))}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Vocoders side by side</h1>
<div class="wide"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>
{notes}
{sections}
</body>
</html>
"""


def _section(clip: HeardClip, measured: Mapping[str, Mapping[str, ClipFigures]]) -> str:
    text = f'<p class="text">{escape(clip.text)}</p>\n' if clip.text else ""
    figures = [_figure(RECORDINGS, "", clip)]
    for name, clips in measured.items():
        if clip.name in clips:
            figures.append(_figure(name, _said(clips[clip.name]), clip))
    return f'<h2>{escape(clip.name)}</h2>\n{text}<div class="clip">\n' + "\n".join(figures) + "\n</div>"


def _figure(name: str, said: str, clip: HeardClip) -> str:
    file = escape(quote(f"{name}/{clip.file}"))
    return (
        f"<figure><figcaption><b>{escape(name)}</b> <span>{escape(said)}</span></figcaption>"
        f'<audio controls preload="none" src="{file}.wav"></audio>'
        f'<a href="{file}.png"><img loading="lazy" src="{file}.png" alt="mel: {escape(name)}, {escape(clip.name)}">'
        "</a></figure>"
    )


def _said(clip: ClipFigures) -> str:
    figures = clip.figures()
    stoi = figures.get("stoi")
    return f"{figures['nats_per_sample']:.3f} nats/sample" + ("" if stoi is None else f", STOI {stoi:.3f}")
