"""Glow on a CPU, beside normflows, nflows and FrEIA in the same run.

    pip install normflows==1.7.3 nflows==0.14 FrEIA==0.2     # beside waveflow; a peer that is missing is left out

    python benchmarks/glow.py times      # CPU milliseconds of log_prob + backward, log_prob and sampling; memory
    python benchmarks/glow.py memory     # what is kept for the backward pass, against the number of steps
    python benchmarks/glow.py profile    # where the time of a training step goes
    python benchmarks/glow.py inverse    # max |x - f^-1(f(x))| in float32 and pixels that change, by preset

3x32x32, L = 3, K = 8, networks of width 256, batches of 8, unless flags say otherwise. One thread. CPU time is the
process's own, the median of rounds in which all take turns. Parameters that start at zero are moved by N(0, 0.002).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from glow_peers import PEERS, Peer
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from waveflow.models import Glow

SHAPE = (3, 32, 32)


def perturb(module: nn.Module, std: float = 0.002) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(0, std)


def smooth_images(batch: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Random images whose neighbouring pixels are alike, uint8."""
    noise = torch.randn(batch, shape[0], -(-shape[1] // 4), -(-shape[2] // 4))
    images = nn.functional.interpolate(noise, shape[1:], mode="bilinear") + 0.05 * torch.randn(batch, *shape)
    return (128 + 50 * images).clamp(0, 255).to(torch.uint8)


def waveflow(levels: int, steps: int, hidden: int, shape: tuple[int, int, int], **fields) -> Peer:
    """Called with uint8, so its times include dequantisation."""
    c, h, w = shape
    model = Glow(channels=c, height=h, width=w, levels=levels, steps=steps, hidden=hidden, **fields)
    return Peer(model, model.log_prob, model.sample, lambda x: model.flow.inverse_error(x).max().item())


OURS = {
    "waveflow": {},
    "waveflow, plu": {"convolution": "plu"},
    "waveflow, plain networks": {"norm": False},
    'waveflow, memory="invert"': {"memory": "invert"},
}


def saved_megabytes(module: nn.Module, loss: Callable[[], Tensor]) -> float:
    """What autograd keeps for the backward pass, parameters aside: storages, each counted once."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = loss()
    result.backward()
    return sum(size for size, _ in kept.values()) / 1e6


def times(options: argparse.Namespace) -> None:
    images = smooth_images(options.batch)
    floats = (images + torch.rand(images.shape)) / 256
    sizes = (options.levels, options.steps, options.hidden, SHAPE)
    rows: dict[str, tuple[Peer, Tensor]] = {}
    for name, fields in OURS.items():
        torch.manual_seed(0)
        rows[name] = (waveflow(*sizes, **fields), images)
    for name, make in PEERS.items():
        torch.manual_seed(0)
        try:
            rows[name] = (make(*sizes), floats)
        except ImportError as error:
            print(f"({name} is left out: {error})")

    def training(peer: Peer, x: Tensor) -> None:
        peer.module.zero_grad()
        (-peer.log_prob(x).mean()).backward()

    @torch.no_grad()
    def density(peer: Peer, x: Tensor) -> None:
        peer.log_prob(x)

    @torch.no_grad()
    def sampling(peer: Peer, x: Tensor) -> None:
        peer.sample(len(x))

    calls = {"log_prob + backward": training, "log_prob": density, "sample": sampling}
    found: dict[tuple[str, str], list[float]] = {}
    for peer, x in rows.values():
        peer.module.train()
        density(peer, x)  # the first batch sets the norms
        perturb(peer.module)
    for call_name, call in calls.items():
        for name in rows:
            call(*rows[name])
        for _ in range(options.repeats):
            for name in rows:
                start = time.process_time()
                call(*rows[name])
                found.setdefault((name, call_name), []).append(1e3 * (time.process_time() - start))
    fastest = {
        call: min((statistics.median(found[name, call]) for name in rows if name in PEERS), default=float("nan"))
        for call in calls
    }
    header = "".join(f"{f'{call}, ms (peer / this)':>32}" for call in calls)
    print(f"{'':28}{'parameters':>11}{'kept, MB':>10}{header}")
    for name, (peer, x) in rows.items():
        size = sum(p.numel() for p in peer.module.parameters() if p.requires_grad)
        kept = saved_megabytes(peer.module, lambda peer=peer, x=x: -peer.log_prob(x).mean())
        medians = {call: statistics.median(found[name, call]) for call in calls}
        cells = "".join(f"{f'{medians[call]:.0f} ({fastest[call] / medians[call]:.2f})':>32}" for call in calls)
        print(f"{name:28}{size:11,}{kept:10.1f}{cells}")
    print("peer: the fastest of them in that column")


def memory(options: argparse.Namespace) -> None:
    images = smooth_images(options.batch)
    print(f"kept for the backward pass, MB, batches of {options.batch}\n{'K':>4}{'store':>10}{'invert':>10}")
    for steps in (2, 4, 8, 16, 32):
        row = []
        for mode in ("store", "invert"):
            model = waveflow(options.levels, steps, options.hidden, SHAPE, memory=mode).module
            model.initialize(images)
            row.append(saved_megabytes(model, lambda model=model: -model.log_prob(images).mean()))
        print(f"{steps:4}{row[0]:10.1f}{row[1]:10.1f}")


def profiled(options: argparse.Namespace) -> None:
    images = smooth_images(options.batch)
    model = waveflow(options.levels, options.steps, options.hidden, SHAPE).module
    model.initialize(images)
    for _ in range(2):
        model.log_prob(images).mean().backward()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(options.repeats):
            model.log_prob(images).mean().backward()
    print(record.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40))


def inverse(options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    for preset in Glow.PRESETS:
        model = Glow.from_preset(preset)
        images = smooth_images(4, model.image_shape).to(torch.int64) * model.config.values // 256
        images = images.to(torch.uint8)
        model.initialize(images)
        perturb(model)
        model.eval()
        error = model.flow.inverse_error((images + 0.5) / model.config.values).max().item()
        changed = (model.decode(model.encode(images)) != images).sum().item()
        print(f"{preset:14}{error:10.1e}{changed:4} of {images.numel()} pixels change")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["times", "memory", "profile", "inverse"])
    for name, default in {"levels": 3, "steps": 8, "hidden": 256, "batch": 8, "repeats": 11}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"times": times, "memory": memory, "profile": profiled, "inverse": inverse}[options.what](options)


if __name__ == "__main__":
    main()
