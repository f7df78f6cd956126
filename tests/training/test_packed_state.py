"""A run packed into small files, unpacked elsewhere, and continued."""

import pytest
import torch

from waveflow.data import Batches
from waveflow.distributions import Flow
from waveflow.errors import InputError
from waveflow.models import MAF
from waveflow.training import Trainer, TrainerConfig
from waveflow.training.packed_state import pack_state, unpack_state
from waveflow.training.run_folder import RunFolder


class Points:
    def __init__(self):
        self.points = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
            [[2.0, 1], [0, 0.3]]
        )

    def __len__(self):
        return len(self.points)

    def item(self, epoch, index):
        return {"x": self.points[index]}


def train(out, steps, resume=False) -> Flow:
    config = TrainerConfig(out=out, steps=steps, resume=resume, learning_rate=1e-2, batch_size=16, device="cpu")
    model = MAF(features=2, layers=2, hidden=(16, 16))
    Trainer(config).fit(model, lambda model, batch: {"loss": -model(batch["x"]).mean()}, Batches(Points(), 16, 0))
    return model


def loss(model) -> float:
    with torch.no_grad():
        return -model.log_prob(Points().points).mean().item()


@pytest.fixture
def run(tmp_path):
    train(tmp_path / "run", 100)
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize("light", [False, True])
def test_training_goes_on_elsewhere(run, tmp_path, light):
    assert pack_state(run, tmp_path / "packed", part_bytes=2000, light=light) == 100
    sizes = [path.stat().st_size for path in (tmp_path / "packed").glob("state.?*")]
    assert max(sizes) <= 2000 and len(sizes) > 2
    there = RunFolder(tmp_path / "there")
    assert unpack_state(tmp_path / "packed", there) == 100

    before, after = run.load()[1], there.load()[1]
    for name, value in before["ema"]["average"].items():
        assert torch.equal(after["ema"]["average"][name], value.bfloat16().float())
        assert torch.equal(after["model"][name], value.bfloat16().float() if light else before["model"][name])
    assert {key: after[key] for key in ("state", "settings", "log_size")} == {
        key: before[key] for key in ("state", "settings", "log_size")
    }
    assert (there.logs / "metrics.csv").read_bytes() == (run.logs / "metrics.csv").read_bytes()

    gone_on, never_moved = train(there.path, 200, resume=True), train(run.path, 200, resume=True)
    start = MAF.from_pretrained(there.path)
    assert loss(gone_on) == pytest.approx(loss(never_moved), abs=0.03)
    assert loss(start) < loss(MAF(features=2, layers=2, hidden=(16, 16))) - 0.05
    log = (there.logs / "metrics.csv").read_text().splitlines()
    steps = [int(line.split(",")[0]) for line in log[1:]]
    assert steps == sorted(steps) and steps[-1] == 200


def test_a_smaller_state_leaves_no_old_parts(run, tmp_path):
    pack_state(run, tmp_path / "packed", part_bytes=2000)
    many = len(list((tmp_path / "packed").iterdir()))
    pack_state(run, tmp_path / "packed", part_bytes=2000, light=True)
    assert len(list((tmp_path / "packed").iterdir())) < many
    assert unpack_state(tmp_path / "packed", RunFolder(tmp_path / "there")) == 100


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder: (folder / "state.1").unlink(), "holds no whole packed state, state.1 is missing"),
        (lambda folder: (folder / "state.json").unlink(), "holds no whole packed state, state.json is missing"),
        (lambda folder: (folder / "state.json").write_text("[]"), "not the index of a packed state"),
        (lambda folder: (folder / "state.1").write_bytes(b"\x00" * 2000), "the parts are not those of one state"),
    ],
)
def test_half_a_state_is_refused(run, tmp_path, spoil, expected):
    pack_state(run, tmp_path / "packed", part_bytes=2000)
    spoil(tmp_path / "packed")
    with pytest.raises(InputError, match=expected):
        unpack_state(tmp_path / "packed", RunFolder(tmp_path / "there"))
    assert not (tmp_path / "there").exists()


def test_a_run_is_not_written_over(run, tmp_path):
    pack_state(run, tmp_path / "packed")
    with pytest.raises(InputError, match="already holds a run"):
        unpack_state(tmp_path / "packed", run)
