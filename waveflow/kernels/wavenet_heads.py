"""One number from a network's answer and a number of noise, compiled: the heads of WaveNet inside its sampling loop.

They equal ``Standardise``, ``Affine``, ``MixtureOfLogistics``, ``DiscretisedMixtureOfLogistics`` and ``Categorical``,
computed in float64 whatever the network's precision: next to a sample's layers a head costs little.
"""

import math
from typing import NamedTuple

from waveflow.kernels.compiled import compiled, compiled_within

GAUSSIAN, LOGISTICS, DISCRETISED_LOGISTICS, CATEGORICAL, AFFINE = range(5)
COLDEST = 1e-6  # where temperature 0, a limit, is computed
SCALE_MAPS = ("exp", "floored", "tanh_exp", "gentle", "sigmoid", "floored_sigmoid")
"""Those of ``LOG_SCALES`` that :func:`draw` knows, in the order of its codes."""


class Head(NamedTuple):
    """What :func:`draw` has to know.

    Attributes:
        kind: one of this module's constants.
        params: how many there are.
        components: of a mixture, else 0.
        values: of a discrete head, else 0.
        scale: of a Gaussian or an affine map, index into ``SCALE_MAPS`` of the map from raw to log scale.
        floor: least log scale of the map "floored" and of a continuous mixture.
        temperature: of a discrete head; a continuous one's is in its noise.
    """

    kind: int
    params: int
    components: int = 0
    values: int = 0
    scale: int = 0
    floor: float = -9.0
    temperature: float = 1.0


@compiled
def draw(head, params, work, noise):
    """The number, as the head gives it, that ``noise`` stands for; NaN where the answer is not finite.

    Args:
        head: a :class:`Head`.
        params: (P or more,), the network's answer.
        work: float64 (3, components or values), written over.
        noise: standard normal, standard logistic, or uniform on (0, 1).
    """
    for i in range(head.params):
        if not math.isfinite(params[i]):
            return math.nan
    if head.kind == GAUSSIAN:
        return params[0] + math.exp(_log_scale(head, params[1])) * noise
    if head.kind == AFFINE:
        return (noise - params[0]) * math.exp(-_log_scale(head, params[1]))
    if head.kind == LOGISTICS:
        return _root(head, params, work, noise)
    if head.kind == DISCRETISED_LOGISTICS:
        return _level(head, params, work, noise)
    return _category(head, params, work, noise)


@compiled
def network_input(head, value):
    """What the network sees of a number: itself, or its place on [-1, 1] where it is one of many values."""
    return value * (2.0 / (head.values - 1)) - 1.0 if head.values else value


@compiled_within
def _log_scale(head, raw):
    raw = float(raw)
    if head.scale == 1:
        return max(raw, head.floor)
    if head.scale == 2:
        return 5.0 * math.tanh(raw / 5.0)
    if head.scale == 3:
        return 2.0 * math.tanh(raw / 2.0)
    if head.scale == 4:
        return -math.log1p(math.exp(-(raw + 2.0)))
    if head.scale == 5:
        return math.log(0.1 + 0.9 / (1.0 + math.exp(-(raw + 2.0))))
    return raw


@compiled_within
def _softmax(logits, weights, count, temperature):
    largest = logits[0]
    for i in range(1, count):
        largest = max(largest, logits[i])
    total = 0.0
    for i in range(count):
        weights[i] = math.exp((float(logits[i]) - largest) / temperature)
        total += weights[i]
    for i in range(count):
        weights[i] /= total


@compiled_within
def _root(head, params, work, z):
    """x with logit F(x) = z: Newton's method within a bracket that it narrows, which is halved where it would leave."""
    k = head.components
    _softmax(params, work[0], k, 1.0)
    low, high = math.inf, -math.inf
    for i in range(k):
        scale = math.exp(max(params[2 * k + i] - math.log(k), head.floor))
        work[1, i], work[2, i] = params[k + i] + ((2.0 * i + 1.0) / k - 1.0), 1.0 / scale
        alone = work[1, i] + scale * z
        low, high = min(low, alone), max(high, alone)
    if not high > low:
        return low
    x = 0.5 * (low + high)
    for _ in range(200):
        below, above, density = 0.0, 0.0, 0.0
        for i in range(k):
            u = (x - work[1, i]) * work[2, i]
            smaller = math.exp(-abs(u))
            larger = 1.0 / (1.0 + smaller)
            smaller *= larger
            below += work[0, i] * (larger if u > 0 else smaller)
            above += work[0, i] * (smaller if u > 0 else larger)
            density += work[0, i] * larger * smaller * work[2, i]
        beyond = math.log(below) - math.log(above) - z
        if beyond > 0:
            high = x
        else:
            low = x
        step = beyond * below * above / density
        new = x - step
        if not (low <= new <= high):
            new = 0.5 * (low + high)
        if abs(new - x) <= 1e-15 * abs(new) or beyond == 0 or high <= low:
            return new
        x = new
    return x


@compiled_within
def _level(head, params, work, u):
    """The smallest value with P(X <= x) >= u, bit by bit."""
    k, last = head.components, head.values - 1
    _softmax(params, work[0], k, head.temperature)
    for i in range(k):
        log_scale = 8.0 * math.tanh(params[2 * k + i] / 8.0) + math.log(head.temperature / (2 * k))
        work[1, i] = params[k + i] + ((2.0 * i + 1.0) / k - 1.0)
        work[2, i] = math.exp(-log_scale)
    # Of the two tails the smaller is compared, which knows 1 - 1e-20 from 1.
    upper = u > 0.5
    tail, sign = (1.0 - u, -1.0) if upper else (u, 1.0)
    bits = 0
    while last >> bits:
        bits += 1
    x = 0
    for shift in range(bits - 1, -1, -1):
        edge = (x + (1 << shift) - 1) * (2.0 / last) - 1.0 + 1.0 / last
        mass = 0.0
        for i in range(k):
            mass += work[0, i] / (1.0 + math.exp(-sign * (edge - work[1, i]) * work[2, i]))
        if mass > tail if upper else mass < tail:
            x += 1 << shift
    return float(min(x, last))


@compiled_within
def _category(head, params, work, u):
    _softmax(params, work[0], head.values, head.temperature)
    total = 0.0
    for i in range(head.values):
        total += work[0, i]
        work[0, i] = total
    x = 0
    while x < head.values - 1 and work[0, x] < u * total:
        x += 1
    return float(x)
