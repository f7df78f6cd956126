"""The peer of the WaveGlow benchmarks: the published network written out in plain PyTorch calls, both directions.

One ``F.conv1d`` for each convolution, as the reference implementation has it, weight norm removed for synthesis and
applied by ``torch.nn.utils.parametrizations`` for training. Same sizes, same number of operations.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class PlainNetwork(nn.Module):
    def __init__(self, half: int, channels: int, layers: int, context: int, normed: bool):
        super().__init__()
        norm = weight_norm if normed else (lambda conv: conv)
        self.channels = channels
        self.start = norm(nn.Conv1d(half, channels, 1))
        self.condition = norm(nn.Conv1d(context, 2 * channels * layers, 1))
        self.dilated = nn.ModuleList(
            norm(nn.Conv1d(channels, 2 * channels, 3, dilation=2**i, padding=2**i)) for i in range(layers)
        )
        self.mix = nn.ModuleList(
            norm(nn.Conv1d(channels, channels * (1 if i == layers - 1 else 2), 1)) for i in range(layers)
        )
        self.end = nn.Conv1d(channels, 2 * half, 1)
        nn.init.normal_(self.end.weight, std=0.01)

    def forward(self, x, context):
        h, skips = self.start(x), 0
        conditions = self.condition(context).chunk(len(self.dilated), 1)
        for i, (dilated, mix) in enumerate(zip(self.dilated, self.mix, strict=True)):
            a, b = (dilated(h) + conditions[i]).chunk(2, 1)
            mixed = mix(torch.tanh(a) * torch.sigmoid(b))
            if i < len(self.dilated) - 1:
                h = h + mixed[:, : self.channels]
                mixed = mixed[:, self.channels :]
            skips = skips + mixed
        return self.end(skips)


class PlainWaveGlow(nn.Module):
    def __init__(self, channels: int = 256, flows: int = 12, layers: int = 8, normed: bool = False):
        super().__init__()
        self.upsample = nn.ConvTranspose1d(80, 80, 1024, stride=256)
        sizes = [8 - 2 * (k // 4) for k in range(flows)]
        self.networks = nn.ModuleList(PlainNetwork(n // 2, channels, layers, 640, normed) for n in sizes)
        self.matrices = nn.ParameterList(torch.linalg.qr(torch.randn(n, n))[0] for n in sizes)

    def context(self, mel, samples):
        up = self.upsample(mel)[..., :samples]
        return up.unfold(2, 8, 8).permute(0, 2, 1, 3).flatten(2).transpose(1, 2)

    def log_prob(self, waveform, mel):
        context = self.context(mel, waveform.shape[1])
        x, total, latents = waveform.unfold(1, 8, 8).transpose(1, 2), 0.0, []
        for k, (matrix, network) in enumerate(zip(self.matrices, self.networks, strict=True)):
            if k in (4, 8):
                latents.append(x[:, :2])
                x = x[:, 2:]
            x = F.conv1d(x, matrix[:, :, None])
            total = total + x.shape[2] * torch.linalg.slogdet(matrix)[1]
            kept, changed = x.chunk(2, 1)
            shift, log_scale = network(kept, context).chunk(2, 1)
            x = torch.cat([kept, changed * log_scale.exp() + shift], 1)
            total = total + log_scale.sum((1, 2))
        z = torch.cat([*latents, x], 1)
        return total - 0.5 * (z.square() + 1.8378770664093453).sum((1, 2))

    @torch.no_grad()
    def vocode(self, mel, z, network_dtype=torch.float32):
        context = self.context(mel, mel.shape[2] * 256).to(network_dtype)
        parts = [z[:, :2], z[:, 2:4]]
        x = z[:, 4:]
        for k in reversed(range(len(self.networks))):
            kept, changed = x.chunk(2, 1)
            shift, log_scale = self.networks[k](kept.to(network_dtype), context).float().chunk(2, 1)
            x = torch.cat([kept, (changed - shift) * (-log_scale).exp()], 1)
            x = F.conv1d(x, torch.linalg.inv(self.matrices[k])[:, :, None])
            if k in (4, 8):
                x = torch.cat([parts.pop(), x], 1)
        return x.transpose(1, 2).flatten(1)
