"""Rows of gates, made and applied in registers: what a compiled WaveNet layer does beside its matrix products.

Dilated convolutions of three taps go by Winograd's F(4, 3) (Lavin and Gray, 2016; arXiv:1509.09308): four outputs from
six inputs by six products instead of twelve. Its points 0, +-1/sqrt(2), +-sqrt(2) and infinity round 2.4 times as
coarsely as the plain sum, where the usual 0, +-1, +-2 give 3.5 times. All in float32, ``LANES`` numbers a vector.
"""

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from waveflow.kernels.tanh_fit import LIMIT, P, Q
from waveflow.kernels.wavenet_tiles import LANES, spread

OUTPUTS, PRODUCTS, TAPS = 4, 6, 3
_NEAR, _FAR = 0.5**0.5, 2.0**0.5  # the points; their squares are 1/2 and 2
_POINTS = (0.0, _NEAR, -_NEAR, _FAR, -_FAR)

_INDEX, _FLOAT = ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_BYTES = 4 * LANES


def transform_taps(taps: np.ndarray) -> np.ndarray:
    """(..., 3, in, out), the oldest tap first, to the six factors (..., 6, in, out)."""
    taps = taps.astype(np.float64)
    factors = [
        sum(p**j * taps[..., j, :, :] for j in range(TAPS)) / np.prod([p - q for q in _POINTS if q != p])
        for p in _POINTS
    ]
    return np.stack([*factors, taps[..., 2, :, :]], -3)


class _Code:
    """A function of addresses and distances in bytes, being written."""

    def __init__(self, builder: ir.IRBuilder):
        self._builder = builder

    def at(self, base, offset):
        if isinstance(offset, int):
            offset = ir.Constant(_INDEX, offset)
        return self._builder.add(base, offset)

    def load(self, base, offset):
        return self._builder.load(self._pointer(base, offset), align=4)

    def store(self, value, base, offset):
        self._builder.store(value, self._pointer(base, offset), align=4)

    def spread(self, address):
        """The number there in every lane."""
        return spread(self._builder, self._builder.load(self._builder.inttoptr(address, _FLOAT.as_pointer()), align=4))

    def add(self, a, b):
        return self._builder.fadd(a, b)

    def sub(self, a, b):
        return self._builder.fsub(a, b)

    def mul(self, a, b):
        return self._builder.fmul(a, _constant(b) if isinstance(b, float) else b)

    def div(self, a, b):
        return self._builder.fdiv(a, b)

    def fma(self, a, b, c):
        """a b + c."""
        b, c = (_constant(v) if isinstance(v, float) else v for v in (b, c))
        fuse = ("contract",)
        return self._builder.fadd(self._builder.fmul(a, b, flags=fuse), c, flags=fuse)

    def bounded(self, x):
        """x within +-9; NaN stays."""
        for sign, limit in (("<", _constant(-LIMIT)), (">", _constant(LIMIT))):
            x = self._builder.select(self._builder.fcmp_ordered(sign, x, limit), limit, x)
        return x

    def polynomial(self, coefficients, x):
        *rest, total = coefficients
        for coefficient in reversed(rest):
            total = self.fma(x, total, coefficient)
        return total

    def gated(self, a, b):
        """tanh(a) (1 + tanh(b)) by one division."""
        a, b = self.bounded(a), self.bounded(b)
        u, v = self.mul(a, a), self.mul(b, b)
        of_a, over_a = self.mul(a, self.polynomial(P, u)), self.polynomial(Q, u)
        of_b, over_b = self.mul(b, self.polynomial(P, v)), self.polynomial(Q, v)
        return self.div(self.mul(of_a, self.add(over_b, of_b)), self.mul(over_a, over_b))

    def _pointer(self, base, offset):
        return self._builder.inttoptr(self.at(base, offset), _VECTOR.as_pointer())


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [value] * LANES)


def _call(context, builder: ir.IRBuilder, arguments: list, write: Callable[..., None]) -> ir.Value:
    """Call what ``write`` writes, which is once in a module and never copied into where it is called."""
    name = f"waveflow_{write.__name__}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [_INDEX] * len(arguments)), name)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        inner = ir.IRBuilder(function.append_basic_block("start"))
        write(_Code(inner), *function.args)
        inner.ret_void()
    builder.call(function, [builder.zext(a, _INDEX) if a.type.width < 64 else a for a in arguments])
    return context.get_dummy_value()


@intrinsic
def transform_inputs(typing_context, x, distance, v, plane):
    """A vector of each of six inputs, for the six products.

    Args:
        x: address of the oldest; the others follow at ``distance``.
        v: address of the first result; the others follow at ``plane``.
    """
    return types.void(*[types.uintp] * 4), lambda context, builder, _, args: _call(context, builder, args, _inputs)


def _inputs(code, x, distance, v, plane):
    d = []
    for _ in range(PRODUCTS):
        d.append(code.load(x, 0))
        x = code.at(x, distance)
    products = [code.add(code.fma(d[2], -2.5, d[4]), d[0])]  # (x^2 - 1/2) (x^2 - 2)
    for point, other in ((_NEAR, 2.0), (_FAR, 0.5)):  # x (x +- point) (x^2 - other)
        even, odd = code.fma(d[2], -other, d[4]), code.mul(code.fma(d[1], -other, d[3]), point)
        products += [code.add(even, odd), code.sub(even, odd)]
    products.append(code.add(code.fma(d[3], -2.5, d[5]), d[1]))
    for product in products:
        code.store(product, v, 0)
        v = code.at(v, plane)


@intrinsic
def gate_products(typing_context, m, plane, gates, gates_distance, bias, out, out_distance):
    """Four activations of the six products and the rest of the gates.

    Args:
        m: address of the first product, a and b a vector each; the others follow at ``plane``.
        gates: address of what is added to the first output, likewise; the others follow at ``gates_distance``.
        bias: address of what is added to all four, likewise.
        out: address of the first activation, a vector; the others follow at ``out_distance``.
    """
    return types.void(*[types.uintp] * 7), lambda context, builder, _, args: _call(context, builder, args, _products)


def _products(code, m, plane, gates, gates_distance, bias, out, out_distance):
    halves = []
    places = [m]
    for _ in range(PRODUCTS - 1):
        places.append(code.at(places[-1], plane))
    for half in (0, _BYTES):
        p = [code.load(place, half) for place in places]
        near, far = code.add(p[1], p[2]), code.add(p[3], p[4])
        near_odd, far_odd = code.sub(p[1], p[2]), code.mul(code.sub(p[3], p[4]), _FAR)
        halves.append(
            (
                code.add(code.add(p[0], near), far),
                code.fma(near_odd, _NEAR, far_odd),
                code.fma(near, 0.5, code.mul(far, 2.0)),
                code.add(code.fma(near_odd, _NEAR / 2, code.mul(far_odd, 2.0)), p[5]),
            )
        )
    of_all = [code.load(bias, half) for half in (0, _BYTES)]
    for both in zip(*halves, strict=True):
        known = [code.add(code.load(gates, half), c) for half, c in zip((0, _BYTES), of_all, strict=True)]
        a, b = (code.add(new, old) for new, old in zip(both, known, strict=True))
        code.store(code.gated(a, b), out, 0)
        gates, out = code.at(gates, gates_distance), code.at(out, out_distance)


@intrinsic
def gate(typing_context, gates, bias, out):
    """One activation, a vector, of its gates and a bias: addresses of a and b, a vector each, twice; of the result."""
    return types.void(*[types.uintp] * 3), lambda context, builder, _, args: _call(context, builder, args, _gate)


def _gate(code, gates, bias, out):
    a, b = (code.add(code.load(gates, half), code.load(bias, half)) for half in (0, _BYTES))
    code.store(code.gated(a, b), out, 0)


@intrinsic
def interpolate(typing_context, left, right, weight, out):
    """Gates between two frames: out = left + weight (right - left), a and b a vector each, by their addresses."""
    return types.void(*[types.uintp] * 4), lambda context, builder, _, args: _call(context, builder, args, _between)


def _between(code, left, right, weight, out):
    weight = code.spread(weight)
    for half in (0, _BYTES):
        begin = code.load(left, half)
        code.store(code.fma(weight, code.sub(code.load(right, half), begin), begin), out, half)
