"""The peer of the student's benchmark: ClariNet's student and teacher written out in plain PyTorch calls.

One ``F.conv1d`` for each convolution, causal by cutting what "same" padding gives too much, as public code has it;
weight norm removed for synthesis and applied by ``torch.nn.utils.parametrizations`` for training. Same sizes, same
number of operations: six flows of 10 layers of 64 channels, and a Gaussian WaveNet of 20 layers of 128.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class PlainUpsampler(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(nn.ConvTranspose2d(1, 1, (3, 32), stride=(1, 16), padding=(1, 8)) for _ in range(2))

    def forward(self, mel):
        x = mel.unsqueeze(1)
        for stage in self.stages:
            x = F.leaky_relu(stage(x), 0.4)
        return x.squeeze(1)


class PlainCausal(nn.Module):
    def __init__(self, inputs, outputs, taps, dilation, normed):
        super().__init__()
        self.padding = dilation * (taps - 1)
        conv = nn.Conv1d(inputs, outputs, taps, dilation=dilation, padding=self.padding)
        self.conv = weight_norm(conv) if normed else conv

    def forward(self, x):
        y = self.conv(x)
        return y[:, :, : -self.padding] if self.padding else y


class PlainWaveNet(nn.Module):
    """Mean and log standard deviation of each sample given those before it."""

    def __init__(self, channels, layers, taps, first_taps, post, normed):
        super().__init__()
        self.first = PlainCausal(1, channels, first_taps, 1, normed)
        self.gates = nn.ModuleList(
            PlainCausal(channels, 2 * channels, taps, 2 ** (i % 10), normed) for i in range(layers)
        )
        self.condition = nn.ModuleList(PlainCausal(80, 2 * channels, 1, 1, normed) for _ in range(layers))
        self.mix = nn.ModuleList(PlainCausal(channels, 2 * channels, 1, 1, normed) for _ in range(layers))
        self.post = PlainCausal(channels, channels, 1, 1, normed) if post else None
        self.end = nn.Conv1d(channels, 2, 1)
        nn.init.normal_(self.end.weight, std=0.01)
        nn.init.zeros_(self.end.bias)

    def forward(self, x, context):
        h, skips = self.first(F.pad(x, (1, 0))[:, :, :-1]), 0
        for gates, condition, mix in zip(self.gates, self.condition, self.mix, strict=True):
            a, b = (gates(h) + condition(context)).chunk(2, 1)
            residual, skip = mix(torch.tanh(a) * torch.sigmoid(b)).chunk(2, 1)
            h, skips = h + residual, skips + skip
        if self.post is not None:
            skips = F.relu(self.post(F.relu(skips)))
        return self.end(skips).chunk(2, 1)


class PlainStudent(nn.Module):
    def __init__(self, normed=False):
        super().__init__()
        self.upsample = PlainUpsampler()
        self.flows = nn.ModuleList(PlainWaveNet(64, 10, 3, 1, False, normed) for _ in range(6))
        for flow in self.flows:
            nn.init.constant_(flow.end.bias[1:], -0.5)

    def forward(self, z, context):
        mean, log_std = torch.zeros_like(z), torch.zeros_like(z)
        for flow in self.flows:
            shift, log_scale = flow(z, context)
            z = z * log_scale.exp() + shift
            mean, log_std = mean * log_scale.exp() + shift, log_std + log_scale
        return z, mean, log_std

    @torch.no_grad()
    def vocode(self, mel, z):
        return self(z, self.upsample(mel))[0][:, 0]


class PlainDistillation(nn.Module):
    """ClariNet's loss: the regularised divergence in closed form, and spectra."""

    def __init__(self):
        super().__init__()
        self.student = PlainStudent(normed=True)
        self.teacher = PlainWaveNet(128, 20, 2, 32, True, False).requires_grad_(False)
        self.student.upsample.requires_grad_(False)
        self.register_buffer("window", torch.hann_window(1024))

    def forward(self, waveform, mel):
        context = self.student.upsample(mel)[..., : waveform.shape[1]]
        x, mean_q, log_q = self.student(torch.randn_like(waveform)[:, None], context)
        mean_p, log_p = self.teacher(x, context)
        penalty = 4 * (log_p - log_q).square()
        log_p, log_q = log_p.clamp_min(-7), log_q.clamp_min(-7)
        kl = log_p - log_q + 0.5 * ((2 * log_q).exp() + (mean_p - mean_q).square()) * (-2 * log_p).exp() - 0.5
        ours, theirs = (
            torch.stft(y, 1024, 256, window=self.window, return_complex=True).abs() for y in (x[:, 0], waveform)
        )
        return (kl + penalty).mean() + (ours - theirs).square().mean()
