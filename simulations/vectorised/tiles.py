"""Small matrix products for kernels: register tiles as vector instructions, which Numba's own loops do not reach.

A tile keeps rows × vectors of the result in registers while it walks along the summed axis: of one operand it reads
vectors of 16 numbers, of the other single numbers that it spreads over a vector. Where the summed axis is the one along
which numbers lie side by side, it reads vectors of both and adds up their lanes at the end. LLVM fits the vectors to
whatever the processor has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fedsite.simulations.vectorised import program

LANES: Final = program.LANES  # float32 numbers of a vector; columns are multiples of it
VECTOR: Final = ir.VectorType(ir.FloatType(), LANES)
_FUSED: Final = ("contract",)  # a product and a sum become one instruction where the processor has it


def _number(value: int) -> Any:
    return ir.IntType(64)(value)


@intrinsic
def address(typing, array, at):
    """A pointer to element `at` of a flat array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.gep(data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.int64), generate


def vector_at(builder: Any, base: Any, at: Any, kind: Any = VECTOR) -> Any:
    """Of the vector that begins so many numbers behind a pointer."""
    return builder.bitcast(builder.gep(base, [at]), kind.as_pointer())


def _picked(builder: Any, one: Any, other: Any, lanes: Sequence[int]) -> Any:
    """Lanes of two vectors, those of the second counted on from the first's."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def _spread(builder: Any, number: Any) -> Any:
    empty = ir.Constant(VECTOR, ir.Undefined)
    return _picked(builder, builder.insert_element(empty, number, ir.IntType(32)(0)), empty, [0] * LANES)


def _sums(builder: Any, rows: int, columns: int) -> list[list[Any]]:
    """Places for vectors that begin as zeros; LLVM keeps them in registers."""
    zero = ir.Constant(VECTOR, [0.0] * LANES)
    found = [[cgutils.alloca_once(builder, VECTOR) for _ in range(columns)] for _ in range(rows)]
    for place in chain.from_iterable(found):
        builder.store(zero, place)
    return found


def _add_product(builder: Any, place: Any, one: Any, other: Any) -> None:
    product = builder.fmul(one, other, flags=_FUSED)
    builder.store(builder.fadd(builder.load(place), product, flags=_FUSED), place)


def tile_of(rows: int, vectors: int) -> Any:
    """An intrinsic: c ← alpha · Σ x y, plus d where `add` is not 0, for so many rows and vectors of columns."""

    @intrinsic
    def tile(typing, x, x_at, x_row, x_walk, y, y_at, y_walk, c, c_at, c_row, d, d_at, d_row, table, count, alpha, add):
        known = (x, x_at, x_row, x_walk, y, y_at, y_walk, c, c_at, c_row, d, d_at, d_row, table, count, alpha, add)
        return types.void(*known), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_at, x_row, x_walk, y, y_at, y_walk, c, c_at, c_row, d, d_at, d_row, table, count, alpha, add = arguments
        left, right = builder.gep(x, [x_at]), builder.gep(y, [y_at])
        into, kept = builder.gep(c, [c_at]), builder.gep(d, [d_at])
        table, first_x, first_c = (builder.extract_value(table, n) for n in range(3))
        at_x, at_c = builder.gep(table, [first_x]), builder.gep(table, [first_c])
        x_step, x_jump, y_step, y_jump = (builder.extract_value(walk, n) for walk in (x_walk, y_walk) for n in (0, 1))
        sums = _sums(builder, rows, vectors)
        places = [builder.mul(builder.load(builder.gep(at_x, [_number(r)])), x_row) for r in range(rows)]
        with cgutils.for_range(builder, builder.extract_value(count, 0)) as outer:
            base = builder.gep(left, [builder.mul(outer.index, x_jump)])
            lines = [builder.gep(base, [place]) for place in places]
            other = builder.gep(right, [builder.mul(outer.index, y_jump)])
            with cgutils.for_range(builder, builder.extract_value(count, 1)) as loop:
                at, row = builder.mul(loop.index, x_step), builder.gep(other, [builder.mul(loop.index, y_step)])
                read = [builder.load(vector_at(builder, row, _number(LANES * v)), align=4) for v in range(vectors)]
                for line, into_row in zip(lines, sums, strict=True):
                    factor = _spread(builder, builder.load(builder.gep(line, [at])))
                    for place, values in zip(into_row, read, strict=True):
                        _add_product(builder, place, factor, values)
        scale, keep = _spread(builder, alpha), builder.icmp_signed("!=", add, add.type(0))
        for r, row in enumerate(sums):
            number = builder.load(builder.gep(at_c, [_number(r)]))
            line, old = builder.mul(number, c_row), builder.mul(number, d_row)
            for v, place in enumerate(row):
                before = builder.load(vector_at(builder, kept, builder.add(old, _number(LANES * v))), align=4)
                before = builder.select(keep, before, ir.Constant(VECTOR, [0.0] * LANES))
                scaled = builder.fmul(scale, builder.load(place), flags=_FUSED)
                target = vector_at(builder, into, builder.add(line, _number(LANES * v)))
                builder.store(builder.fadd(before, scaled, flags=_FUSED), target, align=4)
        return context.get_dummy_value()

    return tile


def dots_of(rows: int) -> Any:
    """An intrinsic: c[i, j] ← Σ_k x[i, k] · y[j, k] for so many rows and 16 / rows columns; k counts vectors."""
    columns = LANES // rows

    @intrinsic
    def dots(typing, x, x_at, x_row, y, y_at, y_row, c, c_at, c_row, depth):
        return types.void(x, x_at, x_row, y, y_at, y_row, c, c_at, c_row, depth), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_at, x_row, y, y_at, y_row, c, c_at, c_row, depth = arguments
        left = builder.gep(x, [x_at])
        right = builder.gep(y, [y_at])
        into = builder.gep(c, [c_at])
        sums = _sums(builder, rows, columns)
        with cgutils.for_range(builder, depth) as loop:
            line = builder.mul(loop.index, _number(LANES))
            ours, theirs = (
                [
                    builder.load(vector_at(builder, base, builder.add(builder.mul(_number(i), stride), line)), align=4)
                    for i in range(count)
                ]
                for base, stride, count in ((left, x_row, rows), (right, y_row, columns))
            )
            for row, one in zip(sums, ours, strict=True):
                for place, other in zip(row, theirs, strict=True):
                    _add_product(builder, place, one, other)
        # Sixteen vectors become one of their totals: neighbours are added, and two vectors share the next one.
        found = [builder.load(place) for place in chain.from_iterable(sums)]
        while len(found) > 1:
            pairs = zip(found[::2], found[1::2], strict=True)
            halves = [[_picked(builder, a, b, range(first, 2 * LANES, 2)) for first in (0, 1)] for a, b in pairs]
            found = [builder.fadd(even, odd, flags=_FUSED) for even, odd in halves]
        for r in range(rows):
            part = _picked(builder, found[0], found[0], range(r * columns, (r + 1) * columns))
            target = vector_at(builder, into, builder.mul(_number(r), c_row), ir.VectorType(ir.FloatType(), columns))
            builder.store(part, target, align=4)
        return context.get_dummy_value()

    return dots
