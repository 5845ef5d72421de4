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
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from fedsite.simulations.vectorised import program

LANES: Final = program.LANES  # float32 numbers of a vector; columns are multiples of it
_VECTOR: Final = ir.VectorType(ir.FloatType(), LANES)
_FUSED: Final = ("contract",)  # a product and a sum become one instruction where the processor has it


def _number(value: int) -> Any:
    return ir.IntType(64)(value)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    """Of element `at` of a flat array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [at])


def _vector(builder: Any, base: Any, at: Any, kind: Any = _VECTOR) -> Any:
    """Of the vector that begins so many numbers behind a pointer."""
    return builder.bitcast(builder.gep(base, [at]), kind.as_pointer())


def _picked(builder: Any, one: Any, other: Any, lanes: Sequence[int]) -> Any:
    """Lanes of two vectors, those of the second counted on from the first's."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def _spread(builder: Any, number: Any) -> Any:
    empty = ir.Constant(_VECTOR, ir.Undefined)
    return _picked(builder, builder.insert_element(empty, number, ir.IntType(32)(0)), empty, [0] * LANES)


def _sums(builder: Any, rows: int, columns: int) -> list[list[Any]]:
    """Places for vectors that begin as zeros; LLVM keeps them in registers."""
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    found = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(columns)] for _ in range(rows)]
    for place in chain.from_iterable(found):
        builder.store(zero, place)
    return found


def _add_product(builder: Any, place: Any, one: Any, other: Any) -> None:
    product = builder.fmul(one, other, flags=_FUSED)
    builder.store(builder.fadd(builder.load(place), product, flags=_FUSED), place)


def _tile(rows: int, vectors: int) -> Any:
    """An intrinsic: c ← alpha · Σ x y, plus c where `add` is not 0, for so many rows and vectors of columns."""

    @intrinsic
    def tile(typing, x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, depth, alpha, add):
        return types.void(x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, depth, alpha, add), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, depth, alpha, add = arguments
        left = _pointer(context, builder, signature.args[0], x, x_at)
        right = _pointer(context, builder, signature.args[4], y, y_at)
        into = _pointer(context, builder, signature.args[7], c, c_at)
        sums = _sums(builder, rows, vectors)
        with cgutils.for_range(builder, depth) as loop:
            line = builder.mul(loop.index, y_step)
            places = [builder.add(line, _number(LANES * v)) for v in range(vectors)]
            read = [builder.load(_vector(builder, right, at), align=4) for at in places]
            for r, row in enumerate(sums):
                at = builder.add(builder.mul(_number(r), x_row), builder.mul(loop.index, x_step))
                factor = _spread(builder, builder.load(builder.gep(left, [at])))
                for place, values in zip(row, read, strict=True):
                    _add_product(builder, place, factor, values)
        scale, keep = _spread(builder, alpha), builder.icmp_signed("!=", add, add.type(0))
        for r, row in enumerate(sums):
            for v, place in enumerate(row):
                at = builder.add(builder.mul(_number(r), c_row), _number(LANES * v))
                target = _vector(builder, into, at)
                before = builder.select(keep, builder.load(target, align=4), ir.Constant(_VECTOR, [0.0] * LANES))
                scaled = builder.fmul(scale, builder.load(place), flags=_FUSED)
                builder.store(builder.fadd(before, scaled, flags=_FUSED), target, align=4)
        return context.get_dummy_value()

    return tile


def _dots(rows: int) -> Any:
    """An intrinsic: c[i, j] ← Σ_k x[i, k] · y[j, k] for so many rows and 16 / rows columns; k counts vectors."""
    columns = LANES // rows

    @intrinsic
    def dots(typing, x, x_at, x_row, y, y_at, y_row, c, c_at, c_row, depth):
        return types.void(x, x_at, x_row, y, y_at, y_row, c, c_at, c_row, depth), generate

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_at, x_row, y, y_at, y_row, c, c_at, c_row, depth = arguments
        left = _pointer(context, builder, signature.args[0], x, x_at)
        right = _pointer(context, builder, signature.args[3], y, y_at)
        into = _pointer(context, builder, signature.args[6], c, c_at)
        sums = _sums(builder, rows, columns)
        with cgutils.for_range(builder, depth) as loop:
            line = builder.mul(loop.index, _number(LANES))
            ours, theirs = (
                [
                    builder.load(_vector(builder, base, builder.add(builder.mul(_number(i), stride), line)), align=4)
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
            target = _vector(builder, into, builder.mul(_number(r), c_row), ir.VectorType(ir.FloatType(), columns))
            builder.store(part, target, align=4)
        return context.get_dummy_value()

    return dots


_two_rows, _one_row = _dots(2), _dots(1)


def _strip(tall: Any, middle: Any, single: Any, heights: tuple[int, int]) -> Any:
    """All rows of a strip of columns."""
    most, some = heights

    @njit(nogil=True)
    def strip(x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, rows, depth, alpha, add):
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


# As many sums as leave room in 32 registers, and enough of them to hide the time that one takes.
_double = _strip(_tile(10, 2), _tile(4, 2), _tile(1, 2), (10, 4))
_single = _strip(_tile(16, 1), _tile(4, 1), _tile(1, 1), (16, 4))


@njit(nogil=True)
def product(x, x_at, x_row, x_step, y, y_at, y_step, c, c_at, c_row, rows, columns, depth, alpha, add):
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
    while j + 2 * LANES <= columns:
        _double(x, x_at, x_row, x_step, y, y_at + j, y_step, c, c_at + j, c_row, rows, depth, alpha, add)
        j += 2 * LANES
    while j < columns:
        _single(x, x_at, x_row, x_step, y, y_at + j, y_step, c, c_at + j, c_row, rows, depth, alpha, add)
        j += LANES


@njit(nogil=True)
def row_products(x, x_at, x_row, y, y_at, y_row, c, c_at, c_row, rows, columns, depth):
    """c[i, j] ← Σ_k x[i, k] · y[j, k]; arguments as for `product`, columns and depth multiples of LANES."""
    pairs = rows // 2 * 2
    for j in range(0, columns, 8):  # these rows of y stay in the nearest cache while all of x goes by
        for i in range(0, pairs, 2):
            _two_rows(
                x, x_at + i * x_row, x_row, y, y_at + j * y_row, y_row, c, c_at + i * c_row + j, c_row, depth // LANES
            )
        if pairs < rows and j % LANES == 0:
            x_end, c_end = x_at + pairs * x_row, c_at + pairs * c_row
            _one_row(x, x_end, x_row, y, y_at + j * y_row, y_row, c, c_end + j, c_row, depth // LANES)
