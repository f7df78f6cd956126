"""Flows on vectors on a CPU, beside zuko, nflows, normflows, pyro and flowjax in the same run.

    pip install -r benchmarks/peers.txt         # beside waveflow; a peer that is missing is left out

    python benchmarks/density.py times          # CPU seconds of log_prob, a training step and sampling, and ratios
    python benchmarks/density.py precision      # bfloat16 autocast: univariate maps by themselves, then whole flows
    python benchmarks/density.py inverse        # max |x - f^-1(f(x))| in float32, near the data and far out
    python benchmarks/density.py stress         # the same with all parameters doubled and quadrupled
    python benchmarks/density.py jacobi         # the solvers of a MAF's inverse: rounds, residual, seconds

One thread. 5 layers, ReLU networks of equal sizes, splines of 8 bins on [-5, 5]. CPU seconds are the process's own
time, the median of rounds in which all libraries take turns. A library's weights are its own initial ones; waveflow's,
of which the last layers would be zero, are moved by N(0, 0.05). ``--quick`` rehearses a command with toy sizes.
"""

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from density_peers import BINS, BOUND, LAYERS, PEERS, TORCH_PEERS, JaxFlow, TorchFlow
from torch import Tensor

from waveflow.bijectors import Affine, Autoregressive, MixtureOfLogisticsCDF, RationalQuadraticSpline, Standardise
from waveflow.bijectors.solvers import Jacobi, Sequential, Solver
from waveflow.data import sample_toy
from waveflow.models import MAF, NSF, CouplingFlow

MODELS = {
    "maf": lambda **sizes: MAF(layers=LAYERS, **sizes),
    "nsf-ar": lambda **sizes: NSF(layers=LAYERS, bins=BINS, bound=BOUND, **sizes),
    "nsf-coupling": lambda **sizes: NSF(layers=LAYERS, bins=BINS, bound=BOUND, coupling=True, **sizes),
    "realnvp": lambda **sizes: CouplingFlow(layers=LAYERS, **sizes),
}
SLOW = 1.0  # seconds: a call that takes longer is made twice, warm-up included


def waveflow(kind: str, features: int, hidden: Sequence[int]) -> TorchFlow:
    model = MODELS[kind](features=features, hidden=tuple(hidden))
    return TorchFlow(
        model,
        log_prob=model.log_prob,
        sample=lambda count: model.sample((count,)),
        encode=lambda x: model.bijector(x)[0],
        decode=lambda z: model.bijector.inverse(z)[0],
    )


def perturb(module: torch.nn.Module, std: float = 0.05) -> None:
    """Move the parameters that start at zero, with which much of the work would be for nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, std)


def libraries(
    names: Sequence[str], kind: str, features: int, hidden: Sequence[int]
) -> Iterator[tuple[str, TorchFlow | JaxFlow]]:
    """waveflow's flow of this kind, unperturbed, and those of the peers that are installed."""
    makers = {"waveflow": waveflow, **{name: PEERS[name] for name in names}}
    for name, make in makers.items():
        torch.manual_seed(0)
        try:
            flow = make(kind, features, hidden)
        except ImportError as error:
            if name not in _missing:
                print(f"({name} is left out: {error})")
                _missing.add(name)
            continue
        yield name, flow


_missing: set[str] = set()


def times(models: Sequence[str], peers: Sequence[str], repeats: int, quick: bool) -> None:
    batch = 50 if quick else 1000
    large, small = ((6, (16, 16)), (4, (8, 8))) if quick else ((43, (512, 512)), (8, (100, 100)))
    cases = [(kind, *sizes) for kind in models for sizes in (large, small) if kind != "realnvp" or sizes is large]
    load, threads = os.getloadavg()[0], 0.0
    for kind, features, hidden in cases:
        flows = dict(libraries(peers, kind, features, hidden))
        perturb(flows["waveflow"].module)
        x = torch.randn(batch, features, generator=torch.Generator().manual_seed(0))
        calls = {
            (name, column): call
            for name, flow in flows.items()
            for column, call in {
                "log_prob": without_gradients(flow.log_prob, x),
                "+ backward": partial(flow.log_prob_backward, x),
                "sample": without_gradients(flow.sample, batch),
            }.items()
        }
        seconds, used = take_turns(calls, repeats)
        threads = max(threads, used)
        print_times(f"{kind}, D = {features}, 2 x {hidden[0]}, batch {batch}", flows, seconds)
    print(f"load of the machine at the start {load:.1f}; CPU time of a call at most {threads:.2f} of its time")


def without_gradients(call: Callable, argument: Tensor | int) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            call(argument)

    return run


def take_turns(calls: dict, repeats: int) -> tuple[dict, float]:
    """Median CPU seconds of each call, and the largest quotient of CPU to wall time: at most 1 on a single thread."""
    found, slow, threads = {key: [] for key in calls}, set(), 0.0
    for call in calls.values():
        call()  # jit, and memory that is had for the first time
    for i in range(repeats):
        for key, call in calls.items():
            if key in slow:
                continue
            wall, start = time.perf_counter(), time.process_time()
            call()
            spent, wall = time.process_time() - start, time.perf_counter() - wall
            found[key].append(spent)
            if wall > 0.01:
                threads = max(threads, spent / wall)
            if i == 0 and spent > SLOW:
                slow.add(key)
    return {key: statistics.median(values) for key, values in found.items()}, threads


def print_times(title: str, flows: dict, seconds: dict) -> None:
    columns = ("log_prob", "+ backward", "sample")
    print(f"\n{title + ': CPU ms':52}{'parameters':>12}" + "".join(f"{column:>12}" for column in columns))
    for name, flow in flows.items():
        values = "".join(f"{1000 * seconds[name, column]:12.1f}" for column in columns)
        print(f"{name:52}{flow.size:12,}{values}")
    ours = {column: seconds["waveflow", column] for column in columns}
    peers = [name for name in flows if name in TORCH_PEERS]
    fastest = {column: min((seconds[name, column] for name in peers), default=float("nan")) for column in columns}
    rows = {"fastest torch peer / waveflow": fastest} if peers else {}
    if "flowjax" in flows:
        rows["flowjax / waveflow"] = {column: seconds["flowjax", column] for column in columns}
    for row, theirs in rows.items():
        print(f"{row:64}" + "".join(f"{theirs[column] / ours[column]:12.2f}" for column in columns))
    if peers:
        print(f"{'waveflow sample / fastest torch log_prob':64}{'':24}{ours['sample'] / fastest['log_prob']:12.2f}")


def precision(peers: Sequence[str], steps: int, quick: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(100 if quick else 1000, 43, generator=generator)
    maps = (Affine("gentle"), Standardise("gentle"), RationalQuadraticSpline(), MixtureOfLogisticsCDF())
    print("log-det of 43 features given the same parameters, bfloat16 autocast against float32: max difference, nats")
    print(f"{'':32}{'forward':>12}{'inverse':>12}")
    for univariate in maps:
        params = torch.randn(len(x), univariate.params, 43, generator=generator)
        errors = [autocast_error(direction, x, params) for direction in (univariate.forward, univariate.inverse)]
        print(f"{type(univariate).__name__:32}" + "".join(f"{error:12.1e}" for error in errors))

    print(f"\nlog_prob of whole flows, D = 8, after {steps} steps, bfloat16 autocast against float32, nats")
    print(f"{'':32}{'mean |.|':>12}{'max |.|':>12}{'float32 mean':>14}")
    for kind in ("maf", "nsf-ar", "nsf-coupling"):
        for name, flow in trained(peers, kind, steps, quick):
            held_out = toys(1000, seed=1)
            with torch.no_grad():
                exact = flow.log_prob(held_out)
                try:
                    with torch.autocast("cpu", torch.bfloat16):
                        error = (flow.log_prob(held_out) - exact).abs()
                    shown = f"{error.mean():12.1e}{error.max():12.1e}"
                except Exception as problem:  # whatever a peer dies of is its figure
                    shown = f"{type(problem).__name__:>24}"
            print(f"{f'{kind}, {name}':32}{shown}{exact.mean():14.3f}")


def autocast_error(direction: Callable, x: Tensor, params: Tensor) -> float:
    """With parameters in float32 and rounded to bfloat16, as a network under autocast gives them."""
    errors = []
    for given in (params, params.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            low = direction(x, given)[1].flatten(1).sum(1)
        errors.append((low - direction(x, given.float())[1].flatten(1).sum(1)).abs().max().item())
    return max(errors)


def toys(rows: int, seed: int = 0) -> Tensor:
    """Four toys of the plane side by side, standardised, turned by a rotation that mixes them: (rows, 8)."""
    names = ("moons", "rings", "pinwheel", "two-gaussians")
    x = torch.cat([torch.from_numpy(sample_toy(name, rows, seed + 10 * i)) for i, name in enumerate(names)], 1)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=x.dtype))[0]
    x = (x - x.mean(0)) / x.std(0) @ rotation
    return x.float()


def trained(peers: Sequence[str], kind: str, steps: int, quick: bool) -> Iterator[tuple[str, TorchFlow]]:
    """waveflow's and the PyTorch peers' flows of 8 features, after the same steps of Adam on the same rows.

    After none, waveflow's is moved, as others are by their first weights.
    """
    x = toys(10_000)
    hidden = (16, 16) if quick else (100, 100)
    for name, flow in libraries([name for name in peers if name in TORCH_PEERS], kind, 8, hidden):
        generator = torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(flow.module.parameters(), lr=1e-3)
        for _ in range(steps):
            flow.log_prob_backward(x[torch.randint(len(x), (256,), generator=generator)])
            optimizer.step()
        if name == "waveflow" and not steps:
            perturb(flow.module)
        yield name, flow


def inverse(peers: Sequence[str], steps: int, quick: bool) -> None:
    x = toys(200 if quick else 2000, seed=1)
    data = {"data": x, "5 sd": 5 * x / x.abs().amax(1, keepdim=True), "times 5": 5 * x}
    print(f"max |x - f^-1(f(x))| in float32, D = 8, {len(x)} rows: data; each scaled until its farthest feature is 5")
    print(
        f"standard deviations out; all 5 times as far. Weights as they start (waveflow's moved), or after {steps} steps"
    )
    print(f"{'':32}{'initial':>12}{'':24}{'trained':>12}")
    print(f"{'':32}" + 2 * "".join(f"{column:>12}" for column in data))
    for kind in ("maf", "nsf-ar", "nsf-coupling"):
        rows: dict[str, list[str]] = {}
        for stage in (0, steps):
            for name, flow in trained(peers, kind, stage, quick):
                rows.setdefault(name, []).extend(reconstruction(flow, given) for given in data.values())
                if name == "waveflow" and kind != "nsf-coupling":
                    set_solver(flow.module, Sequential(polish=2))
                    polished = [reconstruction(flow, given) for given in data.values()]
                    rows.setdefault("waveflow, polish=2", []).extend(polished)
        for name, cells in rows.items():
            print(f"{f'{kind}, {name}':32}" + "".join(f"{cell:>12}" for cell in cells))


def set_solver(module: torch.nn.Module, solver: Solver) -> None:
    for part in module.modules():
        if isinstance(part, Autoregressive):
            part.solver = solver


def reconstruction(flow: TorchFlow, x: Tensor) -> str:
    """The largest error of the rows that come back finite, and how many do not; or what the library died of."""
    try:
        with torch.no_grad():
            error = (flow.decode(flow.encode(x)) - x).abs().amax(1)
    except Exception as problem:  # whatever a peer dies of is its figure
        return type(problem).__name__
    finite = error.isfinite()
    lost = len(x) - int(finite.sum())
    worst = f"{error[finite].max():.1e}" if finite.any() else "-"
    return f"{worst}, {lost} lost" if lost else worst


def stress(peers: Sequence[str], steps: int, quick: bool) -> None:
    x = 2 * torch.randn(200 if quick else 2000, 8, generator=torch.Generator().manual_seed(0))
    print(f"max |x - f^-1(f(x))| in float32, D = 8, {len(x)} rows of 2 N(0, I), with all parameters multiplied")
    for stage, weights in ((0, "as they start (waveflow's moved)"), (steps, f"after {steps} steps")):
        print(f"{weights:32}" + "".join(f"{f'times {gain}':>22}" for gain in (1, 2, 4)))
        for kind in MODELS:
            for name, flow in trained(peers, kind, stage, quick):
                errors, says = [], []
                for doublings in range(3):
                    if doublings:
                        with torch.no_grad():
                            for parameter in flow.module.parameters():
                                parameter.mul_(2)
                    errors.append(reconstruction(flow, x))
                    if name == "waveflow":
                        says.append(checked_sample(flow.module, len(x)))
                print(f"{f'{kind}, {name}':32}" + "".join(f"{error:>22}" for error in errors))
                if says:
                    print(f"{'    sample(check=1e-3)':32}" + "".join(f"{said:>22}" for said in says))


def checked_sample(model: torch.nn.Module, rows: int) -> str:
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            model.sample((rows,), check=1e-3, generator=generator)
    except FloatingPointError as error:
        off = re.search(r"off by (\S+)", str(error))
        return f"raised: {off[1]}" if off else "raised: not finite"
    return "returned"


def jacobi(quick: bool) -> None:
    """Data: a series whose numbers follow from the one before, in mean and spread."""
    cases = [(43, (512, 512), 100, 300), (784, (1024, 1024), 16, 60), (4096, (2048, 2048), 4, 10)]
    if quick:
        cases = [(8, (16, 16), 10, 5), (32, (32, 32), 4, 5)]
    for features, hidden, batch, steps in cases:
        torch.manual_seed(0)
        model = MAF(features=features, layers=LAYERS, hidden=hidden)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(steps):
            model.zero_grad()
            (-model.log_prob(series(batch, features)).mean() / features).backward()
            optimizer.step()
        model.zero_grad()
        with torch.no_grad():
            nats = model.log_prob(series(batch, features)).mean().item() / features
        sizes = f"D = {features}, 2 x {hidden[0]}, batch {batch}, after {steps} steps ({nats:.2f} nats a feature)"
        print(f"\n{sizes:68}{'rounds':>8}{'residual':>10}{'CPU s':>9}{'from sequential':>17}")
        z = torch.randn(batch, features)
        block = -(-features // 8)
        solvers = (Sequential(), Jacobi(1e-6), Jacobi(1e-4), Jacobi(1e-6, block), Jacobi(1e-4, block))
        solved: Tensor | None = None
        for solver in solvers:
            start = time.process_time()
            x, rounds, residual = invert(model, z, solver)
            seconds = time.process_time() - start
            solved = x if solved is None else solved
            print(f"{solver!s:68}{rounds:8}{residual:10.1e}{seconds:9.2f}{(x - solved).abs().max():17.1e}")
    print("(rounds of all layers; as many as there are places are exact, whatever the last one still changed)")


def series(batch: int, features: int) -> Tensor:
    noise = torch.randn(features, batch)
    x = [noise[0]]
    for step in noise[1:]:
        x.append(0.9 * x[-1] + 0.4 * (0.5 * torch.tanh(x[-1])).exp() * step)
    return torch.stack(x, 1)


def invert(model: MAF, z: Tensor, solver: Solver) -> tuple[Tensor, int, float]:
    """x, the rounds of all layers, and the largest residual of a layer."""
    rounds, residual = 0, float("nan")
    for layer in reversed(list(model.bijector)):
        if isinstance(layer, Autoregressive):
            layer.solver = solver
            z, _, used, change = layer.solve(z)
            rounds, residual = rounds + used, max(change, residual) if rounds else change
        else:
            z, _ = layer.inverse(z)
    return z, rounds, residual


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["times", "precision", "inverse", "stress", "jacobi"])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="of times")
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--repeats", type=int, default=7, help="rounds of times; calls above a second take one")
    parser.add_argument("--steps", type=int, help="of training, where there is one; 300")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that all runs")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    steps = (5 if arguments.quick else 300) if arguments.steps is None else arguments.steps
    if arguments.what == "times":
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # jax takes as many threads as cores are allowed
        times(arguments.models, arguments.peers, 1 if arguments.quick else arguments.repeats, arguments.quick)
    elif arguments.what == "jacobi":
        jacobi(arguments.quick)
    else:
        commands = {"precision": precision, "inverse": inverse, "stress": stress}
        commands[arguments.what](arguments.peers, steps, arguments.quick)


if __name__ == "__main__":
    main()
