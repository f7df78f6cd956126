"""A model, data and an objective small enough to train by hand; as a script, a program for subprocesses."""

import json
import os
import random
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from waveflow.training import Trainer, TrainerConfig


@dataclass(frozen=True)
class RegressionConfig:
    features: int = 3
    hidden: tuple[int, ...] = (4,)


class Regression(nn.Module):
    """A two-layer network with a buffer that counts its training calls."""

    def __init__(self, **config):
        super().__init__()
        self.config = RegressionConfig(**config)
        (hidden,) = self.config.hidden
        self.net = nn.Sequential(nn.Linear(self.config.features, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.net(x)

    def save_pretrained(self, folder: Path) -> None:
        (Path(folder) / "config.json").write_text(json.dumps(asdict(self.config)))
        save_file(self.state_dict(), Path(folder) / "model.safetensors")


class Points:
    """Item i of step s follows from (s, i); the NaN of ``bad_steps`` is in the last item, so of the last rank only."""

    def __init__(self, batch_size: int = 4, bad_steps=(), rank: int = 0, world_size: int = 1):
        self.batch_size, self.bad_steps = batch_size, bad_steps
        self.rank, self.world_size = rank, world_size

    def shard(self, rank, world_size):
        return Points(self.batch_size, self.bad_steps, rank, world_size)

    def batch(self, step):
        n = self.batch_size * self.world_size
        x = torch.from_numpy(np.random.default_rng([7, step]).standard_normal((n, 3)))
        y = x.sin().sum(1, keepdim=True)
        if step in self.bad_steps:
            y[-1] = float("nan")
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        return {"x": x[mine].float(), "y": y[mine].float(), "name": ["point"] * self.batch_size}


def squared_error(model, batch):
    error = (model(batch["x"]) - batch["y"]).square()
    return {"loss": error.mean(), "largest": error.max().detach()}


def noisy_squared_error(model, batch):
    """Draws from every global generator that a resumed run has to find again."""
    noise = random.random() + np.random.rand() + torch.randn(batch["y"].shape)
    return {"loss": (model(batch["x"]) - batch["y"] - 0.1 * noise).square().mean()}


def careless_validation(model):
    """Draws from the global generators, which must not matter."""
    random.random(), np.random.rand(), torch.rand(3)
    x = torch.linspace(-1, 1, 12).reshape(4, 3)
    return {"error": (model(x.to(next(model.parameters()))) - x.to(next(model.parameters())).sum(1)).square().mean()}


def train(out, objective=squared_error, batches=None, model=None, **settings):
    """Train a new model in a new trainer; (state, model, trainer)."""
    fit = {k: settings.pop(k) for k in ("validate", "sample", "initialize", "finish", "optimizer") if k in settings}
    trainer = Trainer(TrainerConfig(out=out, **{"learning_rate": 0.05, "device": "cpu"} | settings))
    model = Regression() if model is None else model
    state = trainer.fit(model, objective, batches or Points(), **fit)
    return state, model, trainer


def exported(out) -> dict[str, Tensor]:
    return load_file(Path(out) / "model.safetensors")


def metrics(out) -> list[tuple[int, str, float]]:
    rows = (Path(out) / "logs" / "metrics.csv").read_text().splitlines()
    assert rows[0] == "step,name,value"
    return [(int(step), name, float(value)) for step, name, value in (row.split(",") for row in rows[1:])]


def killed_at(step: int, signum: int = signal.SIGTERM, objective=noisy_squared_error):
    """An objective that sends the process, the last of several, a signal at its step-th call, counted from 1."""
    calls = 0

    def call(model, batch):
        nonlocal calls
        calls += 1
        if calls == step and os.environ.get("RANK") != "0":
            os.kill(os.getpid(), signum)
        return objective(model, batch)

    return call


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    if "killed_at" in settings:
        killer = killed_at(settings.pop("killed_at"), settings.pop("signum", signal.SIGTERM))
        train(objective=killer, validate=careless_validation, **settings)
    else:
        train(batches=Points(2, settings.pop("bad_steps")), validate=careless_validation, **settings)
