"""The peer of the WaveNet benchmarks: the published network in plain PyTorch calls, trained and sampled as published.

Training runs one ``F.conv1d`` for each convolution. Sampling keeps a buffer for each layer, which is shifted by a copy
at every sample, and applies every layer's conditioning at every sample: the incremental sampler that implementations
of WaveNet have shared. Same sizes, same number of operations of the network.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm


class CausalConvolution(nn.Conv1d):
    """A causal convolution that can also be run sample by sample."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.dilation[0] * (self.kernel_size[0] - 1), 0)))

    def begin(self, batch: int) -> None:
        taps, dilation = self.kernel_size[0], self.dilation[0]
        self.buffer = torch.zeros(batch, taps + (taps - 1) * (dilation - 1), self.in_channels)
        self.matrix = self.weight.transpose(1, 2).reshape(self.out_channels, -1)

    def step(self, x: Tensor) -> Tensor:
        """(B, in) to (B, out)."""
        taps = self.kernel_size[0]
        if taps > 1:
            self.buffer[:, :-1] = self.buffer[:, 1:].clone()
            self.buffer[:, -1] = x
            x = self.buffer[:, :: self.dilation[0]].reshape(len(x), -1)
        return F.linear(x, self.matrix, self.bias)


class PlainWaveNet(nn.Module):
    """A WaveNet whose samples follow a Gaussian, a mixture of 10 logistics on 65,536 values, or 256 logits.

    Args:
        head: ``"gaussian"``, ``"mol"`` or ``"softmax"``.
        layers, cycle, channels, kernel_size, first_kernel: of the stack.
        context: channels of the upsampled mel.
        normed: with weight norm, as in training.
    """

    def __init__(
        self,
        head: str,
        layers: int,
        cycle: int,
        channels: int,
        kernel_size: int,
        first_kernel: int = 1,
        context: int = 80,
        normed: bool = False,
    ):
        super().__init__()
        norm = weight_norm if normed else (lambda convolution: convolution)
        outputs = {"gaussian": 2, "mol": 30, "softmax": 256}[head]
        self.head = head
        self.first = norm(CausalConvolution(1, channels, first_kernel))
        self.gates = nn.ModuleList(
            norm(CausalConvolution(channels, 2 * channels, kernel_size, dilation=2 ** (i % cycle)))
            for i in range(layers)
        )
        self.conditions = nn.ModuleList(norm(CausalConvolution(context, 2 * channels, 1)) for _ in range(layers))
        self.skips = nn.ModuleList(norm(CausalConvolution(channels, channels, 1)) for _ in range(layers))
        self.residuals = nn.ModuleList(norm(CausalConvolution(channels, channels, 1)) for _ in range(layers))
        self.last = nn.ModuleList(
            [norm(CausalConvolution(channels, channels, 1)), CausalConvolution(channels, outputs, 1)]
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Parameters (B, P, T) of waveforms (B, T), given (B, context, T)."""
        return self._network(F.pad(x[:, None, :-1], (1, 0)), context, lambda layer, h: layer(h))

    def loss(self, x: Tensor, context: Tensor) -> Tensor:
        """Negative log-likelihood per sample."""
        params = self(x, context)
        if self.head == "gaussian":
            mean, log_std = params[:, 0], params[:, 1].clamp(min=-9)
            return (0.5 * ((x - mean) * torch.exp(-log_std)).square() + log_std).mean()
        if self.head == "softmax":
            return F.cross_entropy(params, ((x.clamp(-1, 1) + 1) * 127.5).round().long())
        logits, means, log_scales = params.chunk(3, 1)
        inverse, half = torch.exp(-log_scales.clamp(min=-9)), 1 / 65535
        centred = x[:, None] - means
        upper, lower = inverse * (centred + half), inverse * (centred - half)
        mass = torch.sigmoid(upper) - torch.sigmoid(lower)
        middle = inverse * centred
        density = middle - log_scales - 2 * F.softplus(middle) - 10.4
        inner = torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), density)
        below, above = upper - F.softplus(upper), -F.softplus(lower)
        outer = torch.where(x[:, None] > 0.999, above, inner)
        tails = torch.where(x[:, None] < -0.999, below, outer)
        return -torch.logsumexp(tails + F.log_softmax(logits, 1), 1).mean()

    @torch.no_grad()
    def sample(self, context: Tensor) -> Tensor:
        """Waveforms (B, T) given (B, context, T), sample by sample."""
        batch, _, steps = context.shape
        convolutions = [m for m in self.modules() if isinstance(m, CausalConvolution)]
        for convolution in convolutions:
            if parametrize.is_parametrized(convolution):
                parametrize.remove_parametrizations(convolution, "weight")
            convolution.begin(batch)
        x, out = torch.zeros(batch, 1), []
        rows = context.transpose(1, 2)
        for t in range(steps):
            params = self._network(x, rows[:, t], lambda layer, h: layer.step(h))
            x = self._draw(params)[:, None]
            out.append(x)
        return torch.cat(out, 1)

    def _network(self, x: Tensor, context: Tensor, run) -> Tensor:
        h, skips = run(self.first, x), 0
        for gates, condition, skip, residual in zip(
            self.gates, self.conditions, self.skips, self.residuals, strict=True
        ):
            a, b = run(gates, h).chunk(2, 1)
            c, d = run(condition, context).chunk(2, 1)
            activation = torch.tanh(a + c) * torch.sigmoid(b + d)
            skips = skips + run(skip, activation)
            h = (h + run(residual, activation)) * 0.5**0.5
        y = F.relu(skips * (1 / len(self.gates)) ** 0.5)
        return run(self.last[1], F.relu(run(self.last[0], y)))

    def _draw(self, params: Tensor) -> Tensor:
        if self.head == "gaussian":
            return params[:, 0] + torch.exp(params[:, 1].clamp(min=-9)) * torch.randn(len(params))
        if self.head == "softmax":
            value = torch.distributions.OneHotCategorical(torch.softmax(params, 1)).sample().argmax(1)
            return value / 127.5 - 1
        logits, means, log_scales = params.chunk(3, 1)
        u = torch.rand_like(logits).clamp(1e-5, 1 - 1e-5)
        chosen = (logits - torch.log(-torch.log(u))).argmax(1, keepdim=True)
        mean, log_scale = means.gather(1, chosen)[:, 0], log_scales.gather(1, chosen)[:, 0].clamp(min=-9)
        u = torch.rand(len(mean)).clamp(1e-5, 1 - 1e-5)
        return (mean + torch.exp(log_scale) * (u.log() - (1 - u).log())).clamp(-1, 1)
