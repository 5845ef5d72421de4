"""Small matrix products for kernels: register tiles as vector instructions, which Numba's own loops do not reach.

A tile keeps rows × vectors of the result in registers while it walks along the summed axis: of one operand it reads
vectors of 16 numbers, of the other single numbers that it spreads over a vector. LLVM fits the vectors to whatever the
processor has. Strides are arguments, so one product serves both passes and the update of a dense layer.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES: Final = 16  # float32 numbers of a vector; columns are multiples of it
_VECTOR: Final = ir.VectorType(ir.FloatType(), LANES)
_FUSED: Final = ("contract",)  # a product and a sum become one instruction where the processor has it


def _tile(rows: int, vectors: int) -> Any:
    """An intrinsic: c ← alpha · Σ x y, plus c where `add` is not 0, for so many rows and vectors of columns."""

    @intrinsic
    def tile(typing, x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, depth, alpha, add):  # type: ignore
        signature = types.void(x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, depth, alpha, add)
        return signature, generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, depth, alpha, add = arguments
        kinds = dict(zip(("x", "y", "c"), (signature.args[place] for place in (0, 4, 7)), strict=True))

        def pointer(name: str, array: Any, at: Any) -> Any:
            data = context.make_array(kinds[name])(context, builder, array).data
            return builder.gep(data, [at])

        def vector(base: Any, at: Any) -> Any:
            return builder.bitcast(builder.gep(base, [at]), _VECTOR.as_pointer())

        def spread(number: Any) -> Any:
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, ir.IntType(32)(0))
            return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), lanes)

        def index(number: int) -> Any:
            return ir.IntType(64)(number)

        left, right, into = pointer("x", x, x_at), pointer("y", y, y_at), pointer("c", c, c_at)
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(vectors)] for _ in range(rows)]
        for row in sums:
            for place in row:
                builder.store(zero, place)
        with cgutils.for_range(builder, depth) as loop:
            line = builder.mul(loop.index, y_step)
            read = [builder.load(vector(right, builder.add(line, index(LANES * v))), align=4) for v in range(vectors)]
            for r, row in enumerate(sums):
                at = builder.add(builder.mul(index(r), x_row), builder.mul(loop.index, x_step))
                factor = spread(builder.load(builder.gep(left, [at])))
                for place, values in zip(row, read, strict=True):
                    product = builder.fmul(factor, values, flags=_FUSED)
                    builder.store(builder.fadd(builder.load(place), product, flags=_FUSED), place)
        scale, keep = spread(alpha), builder.icmp_signed("!=", add, add.type(0))
        for r, row in enumerate(sums):
            for v, place in enumerate(row):
                target = vector(into, builder.add(builder.mul(index(r), c_row), index(LANES * v)))
                before = builder.select(keep, builder.load(target, align=4), zero)
                scaled = builder.fmul(scale, builder.load(place), flags=_FUSED)
                builder.store(builder.fadd(before, scaled, flags=_FUSED), target, align=4)
        return context.get_dummy_value()

    return tile


# As many sums as leave room in 32 registers, and enough of them to hide the time that one takes.
_5x4, _2x4, _1x4 = _tile(5, 4), _tile(2, 4), _tile(1, 4)
_8x2, _4x2, _1x2 = _tile(8, 2), _tile(4, 2), _tile(1, 2)
_16x1, _4x1, _1x1 = _tile(16, 1), _tile(4, 1), _tile(1, 1)


def _strip(tall: Any, middle: Any, single: Any, heights: tuple[int, int]) -> Any:
    """All rows of a strip of columns."""
    most, some = heights

    @njit(nogil=True)
    def strip(x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, rows, depth, alpha, add):  # type: ignore
        i = 0
        while i + most <= rows:
            tall(x, x_at + i * x_row, x_row, x_step, y, y_at, y_step, c, c_at + i * c_row, c_row, depth, alpha, add)
            i += most
        while i + some <= rows:
            middle(x, x_at + i * x_row, x_row, x_step, y, y_at, y_step, c, c_at + i * c_row, c_row, depth, alpha, add)
            i += some
        while i < rows:
            single(x, x_at + i * x_row, x_row, x_step, y, y_at, y_step, c, c_at + i * c_row, c_row, depth, alpha, add)
            i += 1

    return strip


_wide, _half, _narrow = (
    _strip(_5x4, _2x4, _1x4, (5, 2)),
    _strip(_8x2, _4x2, _1x2, (8, 4)),
    _strip(_16x1, _4x1, _1x1, (16, 4)),
)


@njit(nogil=True)
def product(x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, rows, columns, depth, alpha, add):  # type: ignore
    """c[i, j] ← alpha · Σ_k x[i, k] · y[k, j], plus c[i, j] where `add` is not 0.

    Args:
        x: flat float32; element (i, k) lies at x_at + i · x_row + k · x_step.
        y: flat float32; element (k, j) lies at y_at + k · y_step + j.
        c: flat float32; element (i, j) lies at c_at + i · c_row + j.
        rows: of c. columns: of c, a multiple of LANES. depth: numbers summed.
        alpha: float32.
        add: 0 or 1.
    """
    j = 0
    while j + 4 * LANES <= columns:
        _wide(x, x_at, x_row, x_step, y, y_at + j, y_step, c, c_at + j, c_row, rows, depth, alpha, add)
        j += 4 * LANES
    while j + 2 * LANES <= columns:
        _half(x, x_at, x_row, x_step, y, y_at + j, y_step, c, c_at + j, c_row, rows, depth, alpha, add)
        j += 2 * LANES
    while j < columns:
        _narrow(x, x_at, x_row, x_step, y, y_at + j, y_step, c, c_at + j, c_row, rows, depth, alpha, add)
        j += LANES
