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


def _tile(rows: int, vectors: int):
    @intrinsic
    def tile(typing_context, x, x_stride, w, y, y_stride, inputs, like):
        """Rows of x (pointer, stride in numbers) times w (inputs, vectors * LANES), added to rows of y."""
        signature = types.void(*[types.uintp] * 6, like)

        def generate(context, builder, signature, arguments):
            scalar = context.get_value_type(signature.args[-1])
            vector, index = ir.VectorType(scalar, LANES), ir.IntType(64)
            size = context.get_abi_sizeof(scalar)
            x, x_stride, w, y, y_stride, inputs, _ = arguments
            align = size

            def at(base, offset, kind):
                return builder.inttoptr(builder.add(base, offset), kind.as_pointer())

            def number(value):
                return ir.Constant(index, value)

            x_rows = [builder.add(x, builder.mul(x_stride, number(r * size))) for r in range(rows)]
            y_rows = [builder.add(y, builder.mul(y_stride, number(r * size))) for r in range(rows)]
            places = [(r, v) for r in range(rows) for v in range(vectors)]
            targets = [at(y_rows[r], number(v * LANES * size), vector) for r, v in places]
            first = [builder.load(target, align=align) for target in targets]
            before = builder.basic_block
            body = builder.append_basic_block("inputs")
            after = builder.append_basic_block("done")
            builder.cbranch(builder.icmp_unsigned(">", inputs, number(0)), body, after)

            builder.position_at_end(body)
            i = builder.phi(index)
            sums = [builder.phi(vector) for _ in places]
            row = builder.add(w, builder.mul(i, number(vectors * LANES * size)))
            weights = [builder.load(at(row, number(v * LANES * size), vector), align=align) for v in range(vectors)]
            undefined, lane = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            offset = builder.mul(i, number(size))
            spread = []
            for r in range(rows):
                value = builder.load(at(x_rows[r], offset, scalar))
                spread.append(builder.shuffle_vector(builder.insert_element(undefined, value, lane), undefined, mask))
            fuse = ("contract",)
            new = [
                builder.fadd(builder.fmul(spread[r], weights[v], flags=fuse), sums[n], flags=fuse)
                for n, (r, v) in enumerate(places)
            ]
            following = builder.add(i, number(1))
            builder.cbranch(builder.icmp_unsigned("<", following, inputs), body, after)
            i.add_incoming(number(0), before)
            i.add_incoming(following, body)
            for phi, start, value in zip(sums, first, new, strict=True):
                phi.add_incoming(start, before)
                phi.add_incoming(value, body)

            builder.position_at_end(after)
            last = [builder.phi(vector) for _ in places]
            for phi, start, value in zip(last, first, new, strict=True):
                phi.add_incoming(start, before)
                phi.add_incoming(value, body)
            for phi, target in zip(last, targets, strict=True):
                builder.store(phi, target, align=align)
            return context.get_dummy_value()

        return signature, generate

    return tile


_1x1, _1x2, _1x4, _1x8, _1x16 = (_tile(1, v) for v in (1, 2, 4, 8, 16))
_2x1, _2x2, _2x4, _2x8 = (_tile(2, v) for v in (1, 2, 4, 8))
_4x1, _4x2, _4x4 = (_tile(4, v) for v in (1, 2, 4))
_8x1, _8x2 = (_tile(8, v) for v in (1, 2))


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
