"""The peer of the WaveFlow benchmarks: the published network written out in plain PyTorch calls, both directions.

One ``F.conv2d`` in the usual memory layout for each convolution, rows and context permuted between flows, and in
synthesis a cache of rows for each layer that grows by ``torch.cat``, as implementations in PyTorch have it; weight norm
removed for synthesis and applied by ``torch.nn.utils.parametrizations`` for training. Same sizes, same number of
operations.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class PlainRowNetwork(nn.Module):
    def __init__(self, channels: int, layers: int, context: int, normed: bool):
        super().__init__()
        norm = weight_norm if normed else (lambda conv: conv)
        self.channels, self.layers = channels, layers
        self.start = norm(nn.Conv2d(1, channels, 1))
        self.dilated = nn.ModuleList(
            norm(nn.Conv2d(channels, 2 * channels, 3, dilation=(1, 2**i))) for i in range(layers)
        )
        self.condition = nn.ModuleList(norm(nn.Conv2d(context, 2 * channels, 1)) for _ in range(layers))
        self.mix = nn.ModuleList(
            norm(nn.Conv2d(channels, channels * (1 if i == layers - 1 else 2), 1)) for i in range(layers)
        )
        self.end = nn.Conv2d(channels, 2, 1)
        nn.init.normal_(self.end.weight, std=0.02)

    def _layer(self, i, padded, h, condition):
        gates = F.conv2d(padded, self.dilated[i].weight, self.dilated[i].bias, padding=(0, 2**i), dilation=(1, 2**i))
        a, b = (gates + condition).chunk(2, 1)
        mixed = self.mix[i](torch.tanh(a) * torch.sigmoid(b))
        if i == self.layers - 1:
            return None, mixed
        return h + mixed[:, : self.channels], mixed[:, self.channels :]

    def forward(self, x, context):
        h, skips = self.start(x), 0
        for i in range(self.layers):
            h, skip = self._layer(i, F.pad(h, (0, 0, 2, 0)), h, self.condition[i](context))
            skips = skips + skip
        return self.end(skips)

    def conditions(self, context):
        return [condition(context) for condition in self.condition]

    def step(self, row, conditions, caches):
        h, skips = self.start(row), 0
        for i in range(self.layers):
            cache = caches[i]
            cache = F.pad(h, (0, 0, 2, 0)) if cache is None else torch.cat([cache[:, :, -2:], h], 2)
            caches[i] = cache
            h, skip = self._layer(i, cache, h, conditions[i])
            skips = skips + skip
        return self.end(skips)


class PlainWaveFlow(nn.Module):
    def __init__(self, channels: int = 64, flows: int = 8, layers: int = 8, height: int = 16, normed: bool = False):
        super().__init__()
        norm = weight_norm if normed else (lambda conv: conv)
        self.height = height
        self.upsample = nn.ModuleList(
            norm(nn.ConvTranspose2d(1, 1, (3, 32), stride=(1, 16), padding=(1, 8))) for _ in range(2)
        )
        self.networks = nn.ModuleList(PlainRowNetwork(channels, layers, 80, normed) for _ in range(flows))
        down, middle = list(range(height)), height // 2
        halves = [*reversed(down[:middle]), *reversed(down[middle:])]
        self.orders = [down[::-1] if k < flows // 2 else halves for k in range(flows)]

    def context(self, mel, samples):
        x = mel[:, None]
        for stage in self.upsample:
            x = F.leaky_relu(stage(x), 0.4)
        return self.fold(x[:, 0, :, :samples])

    def fold(self, x):
        return x.unflatten(-1, (-1, self.height)).transpose(-1, -2).contiguous()

    def log_prob(self, waveform, mel):
        context, x, total = self.context(mel, waveform.shape[1]), self.fold(waveform[:, None]), 0.0
        for network, order in zip(self.networks, self.orders, strict=True):
            shift, log_scale = network(x[:, :, :-1], context[:, :, 1:]).chunk(2, 1)
            x = torch.cat([x[:, :, :1], x[:, :, 1:] * log_scale.exp() + shift], 2)
            total = total + log_scale.sum((1, 2, 3))
            x, context = x[:, :, order], context[:, :, order]
        return total - 0.5 * (x.square() + 1.8378770664093453).sum((1, 2, 3))

    @torch.no_grad()
    def vocode(self, mel, z, network_dtype=torch.float32):
        context, x = self.context(mel, mel.shape[2] * 256), self.fold(z[:, None])
        for order in self.orders:  # z is in the order of the waveform, as is that of the other model
            x, context = x[:, :, order], context[:, :, order]
        for network, order in zip(reversed(self.networks), reversed(self.orders), strict=True):
            back = torch.tensor(order).argsort()
            x, context = x[:, :, back], context[:, :, back]
            rows, caches = [x[:, :, :1]], [None] * network.layers
            conditions = network.conditions(context[:, :, 1:].to(network_dtype))
            for i in range(1, self.height):
                condition = [c[:, :, i - 1 : i] for c in conditions]
                out = network.step(rows[-1].to(network_dtype), condition, caches).float()
                shift, log_scale = out.chunk(2, 1)
                rows.append((x[:, :, i : i + 1] - shift) * (-log_scale).exp())
            x = torch.cat(rows, 2)
        return x[:, 0].transpose(1, 2).flatten(1)
