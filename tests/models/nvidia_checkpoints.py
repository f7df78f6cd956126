"""Checkpoints as NVIDIA's code leaves them, built from a formula, and what they compute, plainly written."""

import contextlib
import pickle
import sys
import tarfile
import types
import warnings
import zipfile
from collections import OrderedDict

import torch
import torch.nn.functional as F
import yaml
from torch import nn

FLOWS, GROUP, EARLY_EVERY, EARLY, LAYERS, WIDTH, BANDS, TAPS, HOP = 12, 8, 4, 2, 4, 16, 5, 1024, 256


def formula(name, *shape):
    """Numbers in [-1, 1] that depend on the name and the position alone."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(sum(name.encode()) + 1.3 * i + 0.01 * i * i.sqrt()).reshape(shape)


def fused():
    """The state dict of a current WaveGlow."""
    state = OrderedDict()

    def convolution(name, out, into, taps, norm=True):
        state[f"{name}.bias"] = 0.1 * formula(f"{name}.bias", out)
        if norm:
            state[f"{name}.weight_g"] = 0.7 + 0.2 * formula(f"{name}.weight_g", out, 1, 1)
            state[f"{name}.weight_v"] = 0.3 * formula(f"{name}.weight_v", out, into, taps)
        else:
            state[f"{name}.weight"] = 0.05 * formula(f"{name}.weight", out, into, taps)

    convolution("upsample", BANDS, BANDS, TAPS, norm=False)
    for k in range(FLOWS):
        channels = GROUP - EARLY * (k // EARLY_EVERY)
        mixing = 0.2 * formula(f"convinv.{k}", channels, channels) + 0.9 * torch.eye(channels)
        state[f"convinv.{k}.conv.weight"] = mixing[:, :, None]
        convolution(f"WN.{k}.start", WIDTH, channels // 2, 1)
        convolution(f"WN.{k}.end", channels, WIDTH, 1, norm=False)
        convolution(f"WN.{k}.cond_layer", 2 * WIDTH * LAYERS, BANDS * GROUP, 1)
        for i in range(LAYERS):
            convolution(f"WN.{k}.in_layers.{i}", 2 * WIDTH, WIDTH, 3)
            convolution(f"WN.{k}.res_skip_layers.{i}", WIDTH if i == LAYERS - 1 else 2 * WIDTH, WIDTH, 1)
    return OrderedDict((name, tensor.float()) for name, tensor in state.items())


def small(**changes):
    """A state dict of two flows of another shape: groups of 4, one layer of 5 taps, 3 bands, 600 / 200."""
    sizes = {"bands": 3, "group": 4, "width": 6, "taps": 5, "kernel": 600} | changes
    bands, group, width, taps = sizes["bands"], sizes["group"], sizes["width"], sizes["taps"]
    state = {
        "upsample.weight": formula("upsample", bands, bands, sizes["kernel"]).float(),
        "upsample.bias": torch.zeros(bands),
    }
    for k in range(2):
        state[f"convinv.{k}.conv.weight"] = torch.eye(group)[:, :, None]
        shapes = {
            "start": (width, group // 2, 1),
            "end": (group, width, 1),
            "cond_layer": (2 * width, bands * group, 1),
            "in_layers.0": (2 * width, width, taps),
            "res_skip_layers.0": (width, width, 1),
        }
        for name, shape in shapes.items():
            state[f"WN.{k}.{name}.weight"] = formula(name, *shape).float()
            state[f"WN.{k}.{name}.bias"] = formula(name, shape[0]).float()
    return state


def per_layer(state, layers=LAYERS):
    """Conditioning as in 2019: one layer for each, the rows of the fused one."""
    result = OrderedDict()
    for name, tensor in state.items():
        if ".cond_layer." in name:
            for i, rows in enumerate(tensor.chunk(layers)):
                result[name.replace("cond_layer", f"cond_layers.{i}")] = rows.clone()
        else:
            result[name] = tensor
    return result


def apart(state):
    """Residual and skip layers of their own, as in 2018."""
    result = OrderedDict()
    for name, tensor in per_layer(state).items():
        if ".res_skip_layers." in name:
            halves = tensor.split(WIDTH)
            if len(halves) == 2:
                result[name.replace("res_skip_layers", "res_layers")] = halves[0].clone()
            result[name.replace("res_skip_layers", "skip_layers")] = halves[-1].clone()
        else:
            result[name] = tensor
    return result


def weight(state, name):
    """The weight of a convolution, weight norm multiplied out."""
    if f"{name}.weight" in state:
        return state[f"{name}.weight"]
    v = state[f"{name}.weight_v"]
    return state[f"{name}.weight_g"] * v / v.pow(2).sum((1, 2), keepdim=True).sqrt()


def without_weight_norm(state):
    names = [name.rpartition(".")[0] for name in state if name.endswith((".weight_v", ".weight"))]
    result = OrderedDict((f"{name}.weight", weight(state, name)) for name in names)
    return result | {name: tensor for name, tensor in state.items() if name.endswith("bias")}


def parametrised(state):
    spell = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return OrderedDict(
        (".".join([*name.split(".")[:-1], spell.get(name.split(".")[-1], name.split(".")[-1])]), tensor)
        for name, tensor in state.items()
    )


def prefixed(state, prefix):
    return OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def as_nemo(state):
    names = {name: "waveglow." + name.replace("WN.", "wavenet.") for name in state}
    result = OrderedDict((names[name], tensor) for name, tensor in state.items())
    result["audio_to_melspec_precessor.fb"] = torch.zeros(1, BANDS, 513)
    result["waveglow.convinv.0.inv_conv.weight"] = torch.eye(GROUP)[:, :, None]
    return result


NEMO_SETTINGS = {
    "sigma": 1.0,
    "preprocessor": {
        "_target_": "nemo.collections.asr.parts.features.FilterbankFeatures",
        "dither": 0.0,
        "nfilt": BANDS,
        "frame_splicing": 1,
        "highfreq": None,
        "log": True,
        "log_zero_guard_type": "clamp",
        "log_zero_guard_value": "1e-05",
        "lowfreq": 0,
        "mag_power": 1.0,
        "n_fft": TAPS,
        "n_window_size": 1024,
        "n_window_stride": HOP,
        "normalize": None,
        "preemph": None,
        "sample_rate": 22050,
        "window": "hann",
    },
}


def write_nemo(path, weights, settings=NEMO_SETTINGS, mode="w", more=()):
    """A .nemo archive of a checkpoint file; ``more``: tar members (name, file) put before the others."""
    folder = path.parent / f"{path.name}.parts"
    folder.mkdir()
    (folder / "model_config.yaml").write_text(yaml.safe_dump(settings))
    with tarfile.open(path, mode) as tar:
        for name, file in more:
            member = tar.gettarinfo(file)
            member.name = name
            with open(file, "rb") as content:
                tar.addfile(member, content)
        tar.add(folder / "model_config.yaml", "./model_config.yaml")
        tar.add(weights, "./model_weights.ckpt")
    return path


@contextlib.contextmanager
def nvidia_classes(name):
    """A module of that name with the classes of NVIDIA's code, there only as long as the context lasts."""
    parts = name.split(".")
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    for parent in names:
        sys.modules[parent] = types.ModuleType(parent)
    for kind in ("WaveGlow", "WN", "Invertible1x1Conv"):
        setattr(sys.modules[name], kind, type(kind, (nn.Module,), {"__module__": name}))
    try:
        yield sys.modules[name]
    finally:
        for parent in names:
            del sys.modules[parent]


def as_module(state, classes, stride=HOP):
    """A module of these classes with this state, its layers those of torch, weight norm by the hook of its time."""
    root = classes.WaveGlow()
    root.n_flows, root.n_group, root.n_early_every, root.n_early_size = FLOWS, GROUP, EARLY_EVERY, EARLY
    for name in dict.fromkeys(key.rpartition(".")[0] for key in state):
        module, *path = root, *name.split(".")
        for depth, part in enumerate(path[:-1]):
            if part not in module._modules:
                parent = path[depth - 1] if depth else ""
                kinds = {"WN": classes.WN, "convinv": classes.Invertible1x1Conv}
                child = kinds[parent]() if parent in kinds else nn.ModuleList()
                module.add_module(part, child)
            module = module._modules[part]
        out, into, taps = weight(state, name).shape
        kind = (
            nn.ConvTranspose1d(out, into, taps, stride=stride)
            if name == "upsample"
            else nn.Conv1d(into, out, taps, bias=f"{name}.bias" in state)
        )
        if f"{name}.weight_g" in state:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind = nn.utils.weight_norm(kind)
        module.add_module(path[-1], kind)
    root.load_state_dict(state)
    return root


def save(path, content, legacy=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class made on the fly has no source to be kept
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def write_pickle(path, data, legacy=False):
    """A file of PyTorch around the bytes of a pickle."""
    if legacy:
        parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, [])]
        path.write_bytes(b"".join([*parts[:3], data, parts[3]]))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3\n")
    return path


def network(state, name, x, context):
    """WN of NVIDIA's code: (shift, log scale)."""

    def convolution(layer, y, dilation=1):
        w = weight(state, f"{name}.{layer}")
        return F.conv1d(
            y, w, state[f"{name}.{layer}.bias"], padding=dilation * (w.shape[2] - 1) // 2, dilation=dilation
        )

    h = convolution("start", x)
    conditions = convolution("cond_layer", context).chunk(LAYERS, 1)
    skips = torch.zeros_like(h)
    for i in range(LAYERS):
        tanh, sigmoid = (convolution(f"in_layers.{i}", h, 2**i) + conditions[i]).chunk(2, 1)
        both = convolution(f"res_skip_layers.{i}", tanh.tanh() * sigmoid.sigmoid())
        if i < LAYERS - 1:
            h = h + both[:, :WIDTH]
        skips = skips + both[:, -WIDTH:]
    return convolution("end", skips).chunk(2, 1)


def conditioning(state, mel):
    samples = F.conv_transpose1d(mel, state["upsample.weight"], state["upsample.bias"], stride=HOP)
    samples = samples[..., : mel.shape[2] * HOP]
    return samples.unfold(2, GROUP, GROUP).transpose(2, 3).flatten(1, 2)


def encode(state, audio, mel, alternate=False):
    """What NVIDIA's forward gives in float64: z (B, 8, T / 8) and the log-determinant of all of it (B,)."""
    state = {name: tensor.double() for name, tensor in state.items()}
    context = conditioning(state, mel.double())
    x = audio.double().unfold(1, GROUP, GROUP).transpose(1, 2)
    log_det, early = 0, []
    for k in range(FLOWS):
        if k and k % EARLY_EVERY == 0:
            early.append(x[:, :EARLY])
            x = x[:, EARLY:]
        matrix = state[f"convinv.{k}.conv.weight"][:, :, 0]
        a, b = torch.einsum("ij,bjt->bit", matrix, x).chunk(2, 1)
        if alternate and k % 2:
            a, b = b, a
        shift, log_scale = network(state, f"WN.{k}", a, context)
        b = b * log_scale.exp() + shift
        x = torch.cat((b, a) if alternate and k % 2 else (a, b), 1)
        log_det = log_det + log_scale.sum((1, 2)) + x.shape[2] * matrix.det().abs().log()
    return torch.cat((*early, x), 1), log_det


def decode(state, z, mel, alternate=False):
    """What NVIDIA's infer gives in float64 for a latent (B, 8, T / 8): audio (B, T)."""
    state = {name: tensor.double() for name, tensor in state.items()}
    context = conditioning(state, mel.double())
    z = z.double()
    leaving = (FLOWS - 1) // EARLY_EVERY
    x, early = z[:, EARLY * leaving :], list(z[:, : EARLY * leaving].split(EARLY, 1))
    for k in reversed(range(FLOWS)):
        a, b = x.chunk(2, 1)
        if alternate and k % 2:
            a, b = b, a
        shift, log_scale = network(state, f"WN.{k}", a, context)
        b = (b - shift) / log_scale.exp()
        x = torch.cat((b, a) if alternate and k % 2 else (a, b), 1)
        x = torch.einsum("ij,bjt->bit", state[f"convinv.{k}.conv.weight"][:, :, 0].inverse(), x)
        if k and k % EARLY_EVERY == 0:
            x = torch.cat((early.pop(), x), 1)
    return x.transpose(1, 2).flatten(1)


def inputs(frames=3):
    """(mel (1, BANDS, frames), audio (1, T), z (1, 8, T / 8))."""
    mel = -5 + 2 * formula("mel", 1, BANDS, frames).float()
    audio = 0.3 * formula("audio", 1, frames * HOP).float()
    return mel, audio, 0.6 * formula("z", 1, GROUP, frames * HOP // GROUP).float()
