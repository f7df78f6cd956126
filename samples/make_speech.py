"""Make samples/speech again: public-domain sentences read by espeak-ng, in the layout of LJ Speech.

    python samples/make_speech.py [--out samples/speech]

Needs the program `espeak-ng` and the packages numpy, scipy and soundfile. The same espeak-ng gives the same samples:
pace, pitch, level and room noise come from a generator seeded by the number of the clip.
"""

import argparse
import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, lfilter, sosfilt

SAMPLE_RATE = 22050
VOICE = "en-us+f2"  # breathy, with a trace of echo: its long-term spectrum is close to that of LJ Speech
NOISE_DB = -66.0  # RMS in dB re full scale; the pauses of LJ Speech lie around -64
NOISE_POLE = 0.8  # one-pole low-pass: room noise falls towards high frequencies
MARGIN = 0.12  # seconds of room noise kept before and after the words

# work -> its lines as written; where reading aloud differs from writing, a pair (written, normalised).
TEXTS: dict[str, list[str | tuple[str, str]]] = {
    # Lewis Carroll, Alice's Adventures in Wonderland, 1865
    "alice": [
        "Alice was beginning to get very tired of sitting by her sister on the bank.",
        "And what is the use of a book, thought Alice, without pictures or conversations?",
        "Down, down, down. Would the fall never come to an end?",
        "We're all mad here. I'm mad. You're mad.",
    ],
    # Herman Melville, Moby-Dick, 1851
    "whale": [
        "Having little or no money in my purse, and nothing particular to interest me on shore,",
        "I thought I would sail about a little, and see the watery part of the world.",
        "It is a damp, drizzly November in my soul.",
    ],
    # Jane Austen, Pride and Prejudice, 1813
    "pride": [
        "It is a truth universally acknowledged, that a single man in possession of a good fortune,",
        "must be in want of a wife.",
        (
            "My dear Mr. Bennet, said his lady to him one day,",
            "My dear Mister Bennet, said his lady to him one day,",
        ),
        "have you heard that Netherfield Park is let at last?",
    ],
    # Charles Dickens, A Tale of Two Cities, 1859, and A Christmas Carol, 1843
    "dickens": [
        "It was the best of times, it was the worst of times.",
        "It was the spring of hope, it was the winter of despair.",
        "Marley was dead, to begin with. There is no doubt whatever about that.",
        (
            "On Dec. 24 old Scrooge sat busy in his counting house.",
            "On December the twenty fourth old Scrooge sat busy in his counting house.",
        ),
    ],
    # Arthur Conan Doyle, The Adventures of Sherlock Holmes, 1892
    "holmes": [
        "To Sherlock Holmes she is always the woman.",
        "You see, but you do not observe. The distinction is clear.",
        (
            "He lived at 221B Baker Street, with Dr. Watson.",
            "He lived at two twenty one B Baker Street, with Doctor Watson.",
        ),
    ],
    # L. Frank Baum, The Wonderful Wizard of Oz, 1900
    "wizard": [
        "Dorothy lived in the midst of the great Kansas prairies.",
        "There is no place like home.",
    ],
    # Abraham Lincoln, address at Gettysburg, 1863
    "lincoln": [
        "Four score and seven years ago our fathers brought forth on this continent a new nation,",
        "conceived in liberty, and dedicated to the proposition that all men are created equal.",
        "The world will little note, nor long remember, what we say here.",
    ],
    # Henry David Thoreau, Walden, 1854
    "walden": [
        "I went to the woods because I wished to live deliberately.",
        "Simplify, simplify.",
    ],
    # H. G. Wells, The Time Machine, 1895
    "wells": [
        "The fire burned brightly, and the soft radiance of the lamps caught the bubbles.",
        "There are really four dimensions.",
    ],
    # Aesop, The North Wind and the Sun, in the wording of the phoneticians (1912)
    "wind": [
        "The north wind and the sun were disputing which was the stronger,",
        "when a traveler came along wrapped in a warm cloak.",
        "Then the north wind blew as hard as he could,",
        "but the more he blew, the more closely did the traveler fold his cloak around him.",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "speech", help="folder to write")
    out = parser.parse_args().out
    if shutil.which("espeak-ng") is None:
        sys.exit("make_speech.py needs the program espeak-ng on the PATH (Debian: apt-get install espeak-ng)")

    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.flac"):
        old.unlink()
    rows, seconds = [], 0.0
    for work, lines in TEXTS.items():
        for number, line in enumerate(lines, 1):
            written, normalised = line if isinstance(line, tuple) else (line, line)
            clip = speak(normalised, np.random.default_rng([1865, len(rows)]))
            name = f"{work}-{number:02d}"
            soundfile.write(out / f"{name}.flac", clip, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
            rows.append((name, written, normalised))
            seconds += len(clip) / SAMPLE_RATE
    with open(out / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="|", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n").writerows(rows)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {len(rows)} clips, {seconds:.1f} s, {size / 1e6:.2f} MB")


def speak(text: str, rng: np.random.Generator) -> np.ndarray:
    """Read `text` in a pace, pitch and level of its own; int16 samples with room noise under them."""
    words_a_minute, pitch = rng.integers(160, 191), rng.integers(35, 66)
    level = rng.uniform(0.055, 0.08)  # RMS
    command = ["espeak-ng", "-v", VOICE, "-s", str(words_a_minute), "-p", str(pitch), "-z", "--stdout", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    voice, rate = soundfile.read(io.BytesIO(wav))
    if rate != SAMPLE_RATE:
        sys.exit(f"espeak-ng gave {rate} Hz, expected {SAMPLE_RATE}")
    heard = np.flatnonzero(np.abs(voice) > 1e-3)
    voice = np.pad(voice[heard[0] : heard[-1] + 1], round(MARGIN * SAMPLE_RATE))
    voice = sosfilt(butter(2, 40, "highpass", fs=SAMPLE_RATE, output="sos"), voice)  # synthetic voices carry an offset
    voice *= level / np.sqrt(np.mean(voice**2))

    noise = lfilter([1.0], [1.0, -NOISE_POLE], rng.standard_normal(len(voice)))
    noise *= 10 ** (NOISE_DB / 20) * np.sqrt(1 - NOISE_POLE**2)
    return np.round(32768 * np.clip(voice + noise, -1.0, 32767 / 32768)).astype(np.int16)


if __name__ == "__main__":
    main()
