"""The loop against loops written by hand, and runs in pieces against runs at one stroke."""

import json
import math
import signal
from dataclasses import replace

import pytest
import torch
from regression import (
    Points,
    Regression,
    careless_validation,
    exported,
    killed_at,
    metrics,
    noisy_squared_error,
    squared_error,
    train,
)
from safetensors.torch import load_file
from torch import nn

from waveflow.errors import InputError
from waveflow.training import Interrupted, Trainer, TrainerConfig, learning_rate_factor
from waveflow.training.randomness import seed_generators


def clone(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def files(out):
    return [(out / name).read_bytes() for name in ("model.safetensors", "config.json", "logs/metrics.csv")]


def train_by_hand(model, steps, learning_rate, clip_norm=None, bad_steps=(), decay=0.0, schedule=lambda step: 1.0):
    """The textbook loop; returns the averaged weights."""
    points = Points(bad_steps=bad_steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    average, updates = clone(model), 0
    for step in range(steps):
        batch = points.batch(step)
        if step in bad_steps:
            model(batch["x"])
            continue
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * schedule(step)
        optimizer.zero_grad()
        squared_error(model, batch)["loss"].backward()
        if clip_norm:
            norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
            for p in model.parameters():
                p.grad *= min(1.0, float(clip_norm / (norm + 1e-6)))
        optimizer.step()
        d = min(decay, (1 + updates) / (10 + updates))
        for name, p in model.named_parameters():
            average[name] = d * average[name] + (1 - d) * p.detach()
        updates += 1
    return average | dict(model.named_buffers())


def test_equals_a_loop_written_by_hand(tmp_path):
    start = Regression()
    mine, theirs = Regression(), Regression()
    mine.load_state_dict(start.state_dict())
    theirs.load_state_dict(start.state_dict())
    settings = {"clip_norm": 0.3, "warmup_steps": 5, "halve_at": (12,), "ema_decay": 0.9}
    train(tmp_path / "run", model=mine, steps=15, **settings)
    average = train_by_hand(
        theirs,
        15,
        0.05,
        clip_norm=0.3,
        decay=0.9,
        schedule=lambda step: min(1, (step + 1) / 5) / (2 if step >= 12 else 1),
    )
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], weight, rtol=1e-5, atol=1e-6)
    for name, weight in exported(tmp_path / "run").items():
        torch.testing.assert_close(weight, average[name], rtol=1e-5, atol=1e-6)


def test_exports_averaged_weights_and_the_models_own_buffers(tmp_path):
    _, model, _ = train(tmp_path / "run", steps=5, ema_decay=0.9)
    weights = exported(tmp_path / "run")
    assert weights["calls"] == 5
    assert not torch.equal(weights["net.0.weight"], model.net[0].weight)


def test_without_averaging_the_last_weights_are_exported(tmp_path):
    _, model, _ = train(tmp_path / "run", steps=5, ema_decay=0.0)
    assert same(exported(tmp_path / "run"), model.state_dict())


def test_twenty_steps_equal_ten_and_ten_more_bit_for_bit(tmp_path):
    settings = {"validate_every": 6, "log_every": 4, "save_every": 7, "ema_decay": 0.9, "warmup_steps": 12}
    settings |= {"objective": noisy_squared_error, "validate": careless_validation}
    train(tmp_path / "straight", steps=20, **settings)
    train(tmp_path / "pieces", steps=10, **settings)
    train(tmp_path / "pieces", steps=20, resume=True, **settings)
    assert files(tmp_path / "pieces") == files(tmp_path / "straight")
    checkpoint = "checkpoints/step-00000020.safetensors"
    assert (tmp_path / "pieces" / checkpoint).read_bytes() == (tmp_path / "straight" / checkpoint).read_bytes()
    assert exported(tmp_path / "pieces")["net.0.weight"].std() > 0


def test_finished_run_that_is_resumed_stays_as_it_is(tmp_path, capsys):
    settings = {"steps": 5, "validate_every": 2, "validate": careless_validation}
    train(tmp_path / "run", **settings)
    before = files(tmp_path / "run")
    state, _, _ = train(tmp_path / "run", resume=True, **settings)
    assert files(tmp_path / "run") == before and state.step == 5
    assert "nothing left to train" in capsys.readouterr().err


def test_validation_and_sampling_do_not_change_what_is_learnt(tmp_path):
    train(tmp_path / "plain", objective=noisy_squared_error, steps=6)
    train(
        tmp_path / "watched",
        objective=noisy_squared_error,
        steps=6,
        validate_every=1,
        validate=careless_validation,
        sample=lambda model, log: careless_validation(model),
    )
    assert same(exported(tmp_path / "plain"), exported(tmp_path / "watched"))


def test_seed_sets_weights_and_noise(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tmp_path / name, objective=noisy_squared_error, steps=3, seed=seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")[0] != files(tmp_path / "c")[0]


def test_seeding_every_step_does_not_pile_up_memory():
    before = len(torch.cuda._queued_calls)
    for step in range(10):
        seed_generators(0, step)
    assert len(torch.cuda._queued_calls) == before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_saves_and_continues_as_if_nothing_had_been(tmp_path, signum, capsys):
    settings = {"steps": 12, "validate": careless_validation, "validate_every": 5, "log_every": 5}
    handler = signal.getsignal(signum)
    train(tmp_path / "straight", objective=noisy_squared_error, **settings)
    with pytest.raises(Interrupted) as stop:
        train(tmp_path / "pieces", objective=killed_at(7, signum, noisy_squared_error), **settings)
    assert stop.value.code == 128 + signum
    assert signal.getsignal(signum) == handler
    assert "after step 7 of 12" in capsys.readouterr().err
    assert (tmp_path / "pieces" / "model.safetensors").exists()
    train(tmp_path / "pieces", objective=noisy_squared_error, resume=True, **settings)
    assert files(tmp_path / "pieces") == files(tmp_path / "straight")


@pytest.mark.parametrize("validation", [1, 3, 4])
def test_signal_cuts_validation_short_and_it_is_made_up_for(tmp_path, validation):
    settings = {"steps": 9, "validate_every": 3, "log_every": 2, "objective": noisy_squared_error}
    calls = []

    def killed(model):
        calls.append(1)
        if len(calls) == validation:
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("validation went on")
        return careless_validation(model)

    train(tmp_path / "straight", validate=careless_validation, **settings)
    with pytest.raises(Interrupted):
        train(tmp_path / "pieces", validate=killed, **settings)
    train(tmp_path / "pieces", validate=careless_validation, resume=True, **settings)
    assert files(tmp_path / "pieces") == files(tmp_path / "straight")


def test_validation_sees_the_averaged_model_in_eval_mode_without_gradients(tmp_path):
    seen = []
    model = Regression()
    model.net[1].eval()

    def validate(model):
        seen.append((clone(model), model.training, torch.is_grad_enabled(), model.net[1].training))
        return {}

    def freeze(model, batch):
        model.net[1].eval()

    train(tmp_path / "run", model=model, steps=4, validate=validate, initialize=freeze, ema_decay=0.9)
    weights, training, gradients, _ = seen[-1]
    assert same(weights, exported(tmp_path / "run"))
    assert (training, gradients) == (False, False)
    assert model.training and not model.net[1].training


def test_first_and_last_validation_are_returned(tmp_path):
    state, _, _ = train(tmp_path / "run", steps=40, validate=lambda model: {"calls": model.calls})
    assert (state.before, state.after) == ({"calls": 0}, {"calls": 40})
    state, _, _ = train(tmp_path / "run", steps=50, validate=lambda model: {"calls": model.calls}, resume=True)
    assert (state.before, state.after) == ({"calls": 0}, {"calls": 50})


@pytest.mark.parametrize("kind", ["loss", "gradient", "loss without gradient"])
def test_non_finite_steps_are_skipped_and_counted(tmp_path, kind):
    def objective(model, batch):
        figures = squared_error(model, batch)
        if int(model.calls) in (3, 6):
            if kind == "loss":
                figures["loss"] = figures["loss"] * math.nan
            elif kind == "gradient":
                figures["loss"] = figures["loss"] + (0 * model.net[2].bias).sqrt().sum()
            else:
                figures["loss"] = figures["loss"] * 0 + math.inf
        return figures

    start = Regression()
    mine, theirs = Regression(), Regression()
    mine.load_state_dict(start.state_dict())
    theirs.load_state_dict(start.state_dict())
    state, _, _ = train(tmp_path / "run", objective, model=mine, steps=10, log_every=5)
    assert (state.step, state.skipped, state.bad_in_row) == (10, 2, 0)
    train_by_hand(theirs, 10, 0.05, bad_steps=(2, 5))
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], weight, rtol=1e-5, atol=1e-6)
    assert all(math.isfinite(value) for _, _, value in metrics(tmp_path / "run"))
    assert (10, "train/skipped_steps", 2.0) in metrics(tmp_path / "run")


def test_too_many_bad_steps_in_a_row_stop_the_run_with_the_last_save_intact(tmp_path):
    def objective(model, batch):
        return {"loss": squared_error(model, batch)["loss"] * (math.nan if model.calls > 5 else 1)}

    with pytest.raises(InputError, match="3 steps in a row had a non-finite loss or gradient"):
        train(tmp_path / "run", objective, steps=20, save_every=4, max_bad_steps=3)
    saved = exported(tmp_path / "run")
    assert saved["calls"] == 4
    assert all(tensor.isfinite().all() for tensor in saved.values())
    state, _, _ = train(tmp_path / "run", steps=6, resume=True)
    assert state.step == 6


def exploding(first, last, factor=3e6):
    """The squared error plus 1, of which steps ``first`` to ``last``, counted from 1, tell a huge multiple."""

    def objective(model, batch):
        loss = squared_error(model, batch)["loss"] + 1
        return {"loss": loss * (factor if first <= int(model.calls) <= last else 1)}

    return objective


@pytest.mark.parametrize("factor", [1e13, -1e13])
def test_a_loss_that_explodes_is_warned_of_and_stops_the_run_with_the_last_save_intact(tmp_path, factor, caplog):
    with pytest.raises(InputError, match="4 steps in a row had a loss beyond 1,000,000 times the first") as stopped:
        train(tmp_path / "run", exploding(6, 99, factor), steps=20, save_every=4, max_bad_steps=4)
    assert "step 9" in str(stopped.value) and "lower learning rate" in str(stopped.value)
    (warned,) = [record.getMessage() for record in caplog.records]
    assert "Regression diverges: its loss is" in warned and "at step 6" in warned
    assert exported(tmp_path / "run")["calls"] == 4  # what was due at step 8 would have been no good
    state, _, _ = train(tmp_path / "run", lambda model, batch: exploding(99, 99)(model, batch), steps=6, resume=True)
    assert (state.step, state.exploded, state.bad_in_row) == (6, False, 0)


def test_a_loss_that_comes_back_is_warned_of_and_taken_as_any_other(tmp_path, caplog):
    """Steps of Adam hardly know the scale of a loss, so only the warnings say that there was something."""

    def objective(model, batch):
        return (exploding(6, 7) if model.calls < 9 else exploding(10, 11))(model, batch)

    state, _, _ = train(tmp_path / "run", objective, steps=12, max_bad_steps=3, save_every=3)
    assert (state.step, state.skipped, state.bad_in_row, state.exploded) == (12, 0, 0, False)
    assert len(caplog.records) == 1
    assert exported(tmp_path / "run")["calls"] == 12
    caplog.clear()
    train(tmp_path / "high", lambda model, batch: {"loss": 1e13 * squared_error(model, batch)["loss"]}, steps=5)
    train(tmp_path / "bad", exploding(6, 7, 1e4), steps=12)
    assert not caplog.records


def test_exploded_and_non_finite_steps_are_counted_together(tmp_path):
    def objective(model, batch):
        return {
            "loss": squared_error(model, batch)["loss"] * {3: math.nan, 4: 1e13, 5: math.inf}.get(int(model.calls), 1)
        }

    with pytest.raises(InputError, match="3 steps in a row had a non-finite loss or gradient"):
        train(tmp_path / "run", objective, steps=20, max_bad_steps=3)


def test_a_run_that_explodes_is_the_same_in_two_pieces(tmp_path):
    settings = {"objective": exploding(9, 13), "save_every": 5, "max_bad_steps": 6, "log_every": 4}
    train(tmp_path / "straight", steps=20, **settings)
    train(tmp_path / "pieces", steps=11, **settings)
    train(tmp_path / "pieces", steps=20, resume=True, **settings)
    assert files(tmp_path / "pieces") == files(tmp_path / "straight")
    with pytest.raises(InputError, match="6 steps in a row"):
        train(tmp_path / "stopped", steps=11, **settings | {"objective": exploding(9, 99)})
        train(tmp_path / "stopped", steps=20, resume=True, **settings | {"objective": exploding(9, 99)})


def test_logged_figures_are_means_over_the_interval(tmp_path):
    def objective(model, batch):
        return squared_error(model, batch) | {"call": model.calls.double()}

    train(tmp_path / "run", objective, steps=9, log_every=4, warmup_steps=10)
    logged = {(step, name): value for step, name, value in metrics(tmp_path / "run")}
    assert logged[4, "train/call"] == (1 + 2 + 3 + 4) / 4
    assert logged[8, "train/call"] == (5 + 6 + 7 + 8) / 4
    assert logged[8, "train/learning_rate"] == pytest.approx(0.05 * 0.8)
    assert (9, "train/call") not in logged


def test_gradient_norm_is_logged_before_clipping(tmp_path):
    model, twin = Regression(), Regression()
    twin.load_state_dict(model.state_dict())
    squared_error(twin, Points().batch(0))["loss"].backward()
    norm = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm().item()
    train(tmp_path / "run", model=model, steps=1, log_every=1, clip_norm=norm / 100)
    assert (1, "train/gradient_norm", pytest.approx(norm, rel=1e-5)) in metrics(tmp_path / "run")


def test_initialize_runs_once_on_the_first_batch_and_not_after_resume(tmp_path):
    calls = []

    def initialize(model, batch):
        calls.append(batch["x"].clone())
        model.net[0].bias.fill_(5.0)

    train(tmp_path / "run", steps=2, initialize=initialize)
    train(tmp_path / "run", steps=4, initialize=initialize, resume=True)
    (x,) = calls
    assert torch.equal(x, Points().batch(0)["x"])
    assert exported(tmp_path / "run")["net.0.bias"].mean() > 4


def test_double_precision_reaches_model_batch_and_objective(tmp_path):
    types = []

    def objective(model, batch):
        figures = squared_error(model, batch)
        types.extend([batch["x"].dtype, model(batch["x"]).dtype, figures["loss"].dtype])
        return figures

    train(tmp_path / "run", objective, steps=1, precision="64-true")
    assert set(types) == {torch.float64}
    assert exported(tmp_path / "run")["net.0.weight"].dtype == torch.float64


def test_bf16_mixed_computes_in_bfloat16_and_keeps_float32_weights(tmp_path):
    class Watched(Regression):
        def forward(self, x):
            hidden = self.net[0](x)
            types.append(hidden.dtype)
            return super().forward(x)

    types = []
    state, model, _ = train(tmp_path / "run", model=Watched(), steps=30, precision="bf16-mixed")
    assert set(types) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert state.skipped == 0


def test_any_optimizer_is_driven_by_the_configured_learning_rate(tmp_path):
    model, twin = Regression(), Regression()
    twin.load_state_dict(model.state_dict())
    train(tmp_path / "run", model=model, steps=1, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=77.0))
    squared_error(twin, Points().batch(0))["loss"].backward()
    expected = twin.net[0].weight - 0.05 * twin.net[0].weight.grad
    torch.testing.assert_close(model.net[0].weight, expected)


def test_prefetching_changes_nothing(tmp_path):
    for ahead in (0, 3):
        train(tmp_path / str(ahead), objective=noisy_squared_error, steps=7, prefetch=ahead)
    assert files(tmp_path / "0") == files(tmp_path / "3")


def test_error_in_a_prefetched_batch_is_raised(tmp_path):
    class Broken(Points):
        def batch(self, step):
            if step == 2:
                raise InputError("clip 7 is gone")
            return super().batch(step)

    with pytest.raises(InputError, match="clip 7 is gone"):
        train(tmp_path / "run", batches=Broken(), steps=5)


def test_objective_that_gives_no_scalar_is_named(tmp_path):
    def objective(model, batch):
        return squared_error(model, batch) | {"errors": batch["y"]}

    with pytest.raises(ValueError, match=r"errors has shape \(4, 1\)"):
        train(tmp_path / "run", objective, steps=1)


def test_model_without_save_pretrained_is_refused_at_the_start(tmp_path):
    with pytest.raises(TypeError, match="Linear has no save_pretrained"):
        train(tmp_path / "run", model=nn.Linear(3, 1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_cuda_without_a_gpu_is_refused(tmp_path):
    with pytest.raises(InputError, match="PyTorch sees no CUDA device"):
        Trainer(TrainerConfig(out=tmp_path / "run", device="cuda"))
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_gpu_follows_the_cpu(tmp_path, precision):
    train(tmp_path / "cpu", steps=20, precision="64-true")
    state, model, _ = train(tmp_path / "gpu", steps=10, precision=precision, device="cuda")
    train(tmp_path / "gpu", steps=20, precision=precision, device="cuda", resume=True)
    assert next(model.parameters()).is_cuda and state.skipped == 0
    tolerance = {"32-true": 1e-4, "bf16-mixed": 0.1, "64-true": 1e-9}[precision]
    for name, weight in exported(tmp_path / "gpu").items():
        torch.testing.assert_close(weight.double(), exported(tmp_path / "cpu")[name].double(), rtol=0, atol=tolerance)


def test_learning_rate_is_the_same_however_long_the_run(tmp_path):
    rates = [learning_rate_factor(s, warmup_steps=10, decay_after=20, halve_at=(50, 60)) for s in range(100)]
    assert rates[0] == 0.1 and rates[9] == rates[20] == 1.0
    assert rates[40] == pytest.approx(math.sqrt(0.5))
    assert rates[80] == pytest.approx(0.5 / 4)


def test_finish_changes_what_is_saved_last_and_the_run_can_go_on(tmp_path):
    """It sees the averaged weights once, at the end of each run that gets there."""
    seen, config = [], tmp_path / "run" / "config.json"

    def finish(model):
        assert not model.training and not torch.is_grad_enabled()
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        model.config = replace(model.config, hidden=(4 + len(seen),))

    train(tmp_path / "run", steps=2, finish=finish)
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert len(seen) == 1 and all(torch.equal(seen[0][name], saved[name]) for name in saved)
    assert json.loads(config.read_text())["hidden"] == [5]
    train(tmp_path / "run", steps=4, finish=finish, resume=True)
    assert len(seen) == 2 and json.loads(config.read_text())["hidden"] == [6]
    train(tmp_path / "run", steps=4, finish=finish, resume=True)  # nothing left to do
    assert len(seen) == 2


def test_an_error_in_finish_costs_nothing(tmp_path):
    def finish(model):
        raise FloatingPointError("not finite")

    with pytest.raises(FloatingPointError):
        train(tmp_path / "run", steps=3, finish=finish)
    train(tmp_path / "plain", steps=3)
    assert same(exported(tmp_path / "run"), exported(tmp_path / "plain"))
    state, _, _ = train(tmp_path / "run", steps=4, resume=True)
    assert state.step == 4
