"""Small matrix products held in registers, for sampling loops: y += x W with W packed tile by tile.

What a compiler makes of a plain loop keeps its sums in memory. These kernels are written in LLVM's vectors, ``rows`` x
``vectors`` of them, which are sums of one output tile for as long as the inputs last: a weight is read once for all
rows, in the order in which it lies in memory, and nothing else goes to memory and back.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from waveflow.kernels.compiled import compiled

LANES = 16  # numbers a vector: 64 bytes of float32; two registers of float64, or wherever registers are shorter
_INDEX, _LANE = ir.IntType(64), ir.Constant(ir.IntType(32), 0)
_EVERYWHERE = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
_SUMS = 16  # vectors of sums at a time, of 32 registers


def tile_width(outputs: int, rows: int) -> int:
    """Width of the tiles of a matrix with that many outputs, a multiple of ``LANES``, for products of so many rows."""
    width = LANES * (_SUMS // min(8, 1 << (rows - 1).bit_length()))
    while outputs % width:
        width //= 2
    return width


def pack(matrix: np.ndarray, width: int) -> np.ndarray:
    """(..., inputs, outputs) to (..., outputs / width, inputs, width)."""
    *batch, inputs, outputs = matrix.shape
    tiles = matrix.reshape(*batch, inputs, outputs // width, width)
    return np.ascontiguousarray(np.swapaxes(tiles, -3, -2))


def _tile(rows: int, vectors: int, adds: bool = True):
    @intrinsic
    def tile(typing_context, x, x_stride, w, y, y_stride, inputs, like):
        """Rows of x (address, numbers from row to row) times w (inputs, vectors * LANES): added to rows of y, or y."""

        def generate(context, builder, signature, arguments):
            scalar = context.get_value_type(like)
            addresses = [builder.zext(a, _INDEX) if a.type.width < 64 else a for a in arguments[:-1]]
            builder.call(_function(context, builder.module, scalar, rows, vectors, adds), addresses)
            return context.get_dummy_value()

        return types.void(*[types.uintp] * 6, like), generate

    return tile


def _function(context, module: ir.Module, scalar: ir.Type, rows: int, vectors: int, adds: bool) -> ir.Function:
    """The tile's code, once in a module and never copied into where it is called: compiling stays short."""
    name = f"waveflow_tile_{rows}x{vectors}{'' if adds else '_new'}_{scalar}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_INDEX] * 6), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    x, x_stride, w, y, y_stride, inputs = function.args
    builder = ir.IRBuilder(function.append_basic_block("start"))
    body, done = function.append_basic_block("inputs"), function.append_basic_block("done")
    size, vector = context.get_abi_sizeof(scalar), ir.VectorType(scalar, LANES)
    places = [(r, v) for r in range(rows) for v in range(vectors)]

    def at(base, offset, kind):
        return builder.inttoptr(builder.add(base, offset), kind.as_pointer())

    def number(value):
        return ir.Constant(_INDEX, value)

    x_rows = [builder.add(x, builder.mul(x_stride, number(r * size))) for r in range(rows)]
    y_rows = [builder.add(y, builder.mul(y_stride, number(r * size))) for r in range(rows)]
    targets = [at(y_rows[r], number(v * LANES * size), vector) for r, v in places]
    nothing = ir.Constant(vector, [0.0] * LANES)
    first = [builder.load(target, align=size) if adds else nothing for target in targets]
    start = builder.basic_block
    builder.cbranch(builder.icmp_unsigned(">", inputs, number(0)), body, done)

    builder.position_at_end(body)
    i, sums = builder.phi(_INDEX), [builder.phi(vector) for _ in places]
    row = builder.add(w, builder.mul(i, number(vectors * LANES * size)))
    weights = [builder.load(at(row, number(v * LANES * size), vector), align=size) for v in range(vectors)]
    offset = builder.mul(i, number(size))
    inputs_of_rows = [spread(builder, builder.load(at(x_rows[r], offset, scalar))) for r in range(rows)]
    fuse = ("contract",)
    new = [
        builder.fadd(builder.fmul(inputs_of_rows[r], weights[v], flags=fuse), total, flags=fuse)
        for (r, v), total in zip(places, sums, strict=True)
    ]
    following = builder.add(i, number(1))
    builder.cbranch(builder.icmp_unsigned("<", following, inputs), body, done)
    _join(i, start, number(0), body, following)

    builder.position_at_end(done)
    last = [builder.phi(vector) for _ in places]
    for n, target in enumerate(targets):
        _join(sums[n], start, first[n], body, new[n])
        _join(last[n], start, first[n], body, new[n])
        builder.store(last[n], target, align=size)
    builder.ret_void()
    return function


def _join(phi, start, first, body, new) -> None:
    phi.add_incoming(first, start)
    phi.add_incoming(new, body)


def spread(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """A vector of ``LANES`` times that number, code being written."""
    undefined = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(undefined, number, _LANE), undefined, _EVERYWHERE)


_1x1, _1x2, _1x4, _1x8, _1x16 = (_tile(1, v) for v in (1, 2, 4, 8, 16))
_2x1, _2x2, _2x4, _2x8 = (_tile(2, v) for v in (1, 2, 4, 8))
_4x1, _4x2, _4x4 = (_tile(4, v) for v in (1, 2, 4))
_8x1, _8x2 = (_tile(8, v) for v in (1, 2))
_new_8x2 = _tile(8, 2, adds=False)


@compiled
def add_product(x, x_stride, rows, packed, y, y_stride, like):
    """y += x W.

    Args:
        x: address of the first row of inputs.
        x_stride: numbers from one row to the next.
        rows: how many.
        packed: W as :func:`pack` made it, (tiles, inputs, width).
        y: address of the first row of outputs.
        y_stride: numbers from one row to the next.
        like: a number of the dtype of all three.
    """
    tiles, inputs, width = packed.shape
    size = packed.itemsize
    vectors = width // LANES
    for tile in range(tiles):
        w = packed.ctypes.data + tile * inputs * width * size
        out = y + tile * width * size
        r = 0
        while r < rows:
            left = rows - r
            a, b = x + r * x_stride * size, out + r * y_stride * size
            if vectors == 16:
                _1x16(a, x_stride, w, b, y_stride, inputs, like)
                r += 1
            elif vectors == 8:
                if left >= 2:
                    _2x8(a, x_stride, w, b, y_stride, inputs, like)
                    r += 2
                else:
                    _1x8(a, x_stride, w, b, y_stride, inputs, like)
                    r += 1
            elif vectors == 4:
                if left >= 4:
                    _4x4(a, x_stride, w, b, y_stride, inputs, like)
                    r += 4
                elif left >= 2:
                    _2x4(a, x_stride, w, b, y_stride, inputs, like)
                    r += 2
                else:
                    _1x4(a, x_stride, w, b, y_stride, inputs, like)
                    r += 1
            elif vectors == 2:
                if left >= 8:
                    _8x2(a, x_stride, w, b, y_stride, inputs, like)
                    r += 8
                elif left >= 4:
                    _4x2(a, x_stride, w, b, y_stride, inputs, like)
                    r += 4
                elif left >= 2:
                    _2x2(a, x_stride, w, b, y_stride, inputs, like)
                    r += 2
                else:
                    _1x2(a, x_stride, w, b, y_stride, inputs, like)
                    r += 1
            elif left >= 8:
                _8x1(a, x_stride, w, b, y_stride, inputs, like)
                r += 8
            elif left >= 4:
                _4x1(a, x_stride, w, b, y_stride, inputs, like)
                r += 4
            elif left >= 2:
                _2x1(a, x_stride, w, b, y_stride, inputs, like)
                r += 2
            else:
                _1x1(a, x_stride, w, b, y_stride, inputs, like)
                r += 1


@compiled
def set_product(x, x_stride, rows, packed, y, y_stride, like):
    """y = x W, for a single tile of two vectors (1, inputs, 2 * LANES) and a multiple of eight rows.

    Args: as of :func:`add_product`.
    """
    size = packed.itemsize
    for r in range(0, rows, 8):
        a, b = x + r * x_stride * size, y + r * y_stride * size
        _new_8x2(a, x_stride, packed.ctypes.data, b, y_stride, packed.shape[1], like)
