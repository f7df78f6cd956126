"""A checkpoint small enough to vocode in milliseconds, and clips to vocode."""

import math

import numpy as np
import pytest
import soundfile
import torch

from waveflow.cli import main
from waveflow.models import WaveGlow

SMALL = {"flows": 2, "group": 8, "early_every": 0, "layers": 2, "channels": 8, "upsampler": "linear"}


def voice(seconds: float = 0.8, pitch: float = 150.0, rate: int = 22050) -> np.ndarray:
    """Harmonics with a slow tremolo and a little noise, which pitch trackers and STOI take for a voice."""
    t = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * math.pi * pitch * k * t) / k for k in range(1, 12))
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (0.1 * tone * (1 + 0.5 * np.sin(2 * math.pi * 4 * t)) + 0.003 * noise).astype(np.float32)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folder of a WaveGlow whose couplings do something."""
    torch.manual_seed(1)
    model = WaveGlow(**SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("checkpoint") / "waveglow"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def clip(tmp_path):
    """A wav file at the rate of the checkpoint."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, voice(), 22050)
    return path


@pytest.fixture
def run(capsys):
    """Run the command in this process: (exit code, standard output, standard error)."""

    def call(*words) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def refused(run):
    """Run the command, expect one clear line and exit code 2, return the line."""

    def call(*words) -> str:
        code, _, errors = run(*words)
        assert code == 2
        assert "Traceback" not in errors
        lines = errors.strip().splitlines()
        assert len(lines) == 1, errors
        assert lines[0].startswith("waveflow: error: ")
        return lines[0]

    return call
