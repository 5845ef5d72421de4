"""Products of small matrices for kernels, cut into the tiles of tiles.py.

Rows lie at equal distances, or where a table says: so a convolution is a product too, and no patches are copied.

Both products are compiled once, when this module is loaded, and called by address: Numba would compile what a function
calls anew in every function above it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from llvmlite import binding
from numba import cfunc, njit, types

from fedsite.simulations.vectorised.tiles import LANES, address, dots_of, tile_of

_FLOATS, _INTS, _INT = types.CPointer(types.float32), types.CPointer(types.int64), types.int64
_RAMP: Final = np.arange(16)  # rows of a tile at equal distances
_UNIT: Final = np.ones(1, np.float32)
# As many sums as leave room in 32 registers, and enough of them to hide the time that one takes.
_double_10, _double_4, _double_1 = tile_of(10, 2), tile_of(4, 2), tile_of(1, 2)
_single_10, _single_4, _single_1 = tile_of(10, 1), tile_of(4, 1), tile_of(1, 1)
_two_rows, _one_row = dots_of(2), dots_of(1)


# fmt: off
def _tiles(
    x, x_row, x_step, x_jump, y, y_step, y_jump, c, c_row, d, d_row, rows, columns,
    places, first_x, first_c, walk, jumps, steps, alpha, add,
):
    """All tiles of a product; `walk`: whether rows are followed along the table, or along the arrays."""
    xs, ys, count = (x_step, x_jump), (y_step, y_jump), (jumps, steps)
    j = 0
    while j < columns:
        wide = columns - j >= 2 * LANES
        i = 0
        while i < rows:
            at = (1 - walk) * i
            k, n, m = at * x_row, at * c_row + j, at * d_row + j
            table = (places, first_x + walk * i, first_c + walk * i)
            if rows - i >= 10:
                if wide:
                    _double_10(x, k, x_row, xs, y, j, ys, c, n, c_row, d, m, d_row, table, count, alpha, add)
                else:
                    _single_10(x, k, x_row, xs, y, j, ys, c, n, c_row, d, m, d_row, table, count, alpha, add)
                i += 10
            elif rows - i >= 4:
                if wide:
                    _double_4(x, k, x_row, xs, y, j, ys, c, n, c_row, d, m, d_row, table, count, alpha, add)
                else:
                    _single_4(x, k, x_row, xs, y, j, ys, c, n, c_row, d, m, d_row, table, count, alpha, add)
                i += 4
            else:
                if wide:
                    _double_1(x, k, x_row, xs, y, j, ys, c, n, c_row, d, m, d_row, table, count, alpha, add)
                else:
                    _single_1(x, k, x_row, xs, y, j, ys, c, n, c_row, d, m, d_row, table, count, alpha, add)
                i += 1
        j += 2 * LANES if wide else LANES


def _dots(x, x_row, y, y_row, c, c_row, rows, columns, depth):
    """All tiles of a product of rows by rows."""
    pairs = rows // 2 * 2
    for j in range(0, columns, 8):  # these rows of y stay in the nearest cache while all of x goes by
        for i in range(0, pairs, 2):
            _two_rows(x, i * x_row, x_row, y, j * y_row, y_row, c, i * c_row + j, c_row, depth // LANES)
        if pairs < rows and j % LANES == 0:
            _one_row(x, pairs * x_row, x_row, y, j * y_row, y_row, c, pairs * c_row + j, c_row, depth // LANES)


_TILES: Final = types.void(
    _FLOATS, _INT, _INT, _INT, _FLOATS, _INT, _INT, _FLOATS, _INT, _FLOATS, _INT, _INT, _INT,
    _INTS, _INT, _INT, _INT, _INT, _INT, types.float32, _INT,
)
_DOTS: Final = types.void(_FLOATS, _INT, _FLOATS, _INT, _FLOATS, _INT, _INT, _INT, _INT)
# fmt: on
_tiled, _dotted = cfunc(_TILES, cache=True)(_tiles), cfunc(_DOTS, cache=True)(_dots)
binding.add_symbol("fedsite_tiles", _tiled.address)
binding.add_symbol("fedsite_dots", _dotted.address)
_call_tiles, _call_dots = types.ExternalFunction("fedsite_tiles", _TILES), types.ExternalFunction("fedsite_dots", _DOTS)


_VECTOR, _PLACES = types.float32[::1], types.Array(types.int64, 1, "C", readonly=True)
# With types said beforehand: Numba would compile each anew for every number that is a constant where it is called.
_PRODUCT: Final = types.void(*(_VECTOR, _INT, _INT, _INT), *(_VECTOR, _INT, _INT) * 2, *[_INT] * 3, types.float32, _INT)
_SCATTERED: Final = types.void(
    *(_VECTOR, _INT, _INT, _INT) * 2, *(_VECTOR, _INT, _INT) * 2, _INT, _INT, _PLACES, *[_INT] * 4, types.float32, _INT
)
_SUMS: Final = types.void(_VECTOR, _INT, _INT, _INT, _VECTOR, *[_INT] * 4, types.float32)
_BY_ROWS: Final = types.void(*(_VECTOR, _INT, _INT) * 3, _INT, _INT, _INT)


@njit(_PRODUCT, nogil=True, cache=True)
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
    into = address(c, c_at)
    _call_tiles(
        address(x, x_at), x_row, x_step, 0, address(y, y_at), y_step, 0, into, c_row, into, c_row,
        rows, columns, address(_RAMP, 0), 0, 0, 0, 1, depth, alpha, add,
    )  # fmt: skip


@njit(_SCATTERED, nogil=True, cache=True)
def scattered_product(
    x, x_at, x_step, x_jump, y, y_at, y_step, y_jump, c, c_at, c_row, d, d_at, d_row,
    rows, columns, places, first_x, first_c, jumps, steps, alpha, add,
):  # fmt: skip
    """As `product`, with rows and summed numbers anywhere, and `d` added instead of c.

    Args:
        x: row i begins at x_at + places[first_x + i]; number (s, k) of a sum is s · x_jump + k · x_step behind it.
        y: number (s, k) of a sum begins at y_at + s · y_jump + k · y_step.
        c: row i begins at c_at + places[first_c + i] · c_row; it may overlap the next, and rows are added in order.
        d: row i begins at d_at + places[first_c + i] · d_row.
        rows, columns, alpha, add: as in `product`.
        places: [number] int64, read-only.
        jumps, steps: how many s and k there are.
    """
    _call_tiles(
        address(x, x_at), 1, x_step, x_jump, address(y, y_at), y_step, y_jump,
        address(c, c_at), c_row, address(d, d_at), d_row,
        rows, columns, address(places, 0), first_x, first_c, 1, jumps, steps, alpha, add,
    )  # fmt: skip


@njit(_SUMS, nogil=True, cache=True)
def add_sums(y, y_at, y_step, y_jump, c, c_at, columns, jumps, steps, alpha):
    """c[j] += alpha · Σ y[s, k, j]; arguments as for `scattered_product`."""
    into = address(c, c_at)
    _call_tiles(
        address(_UNIT, 0), 0, 0, 0, address(y, y_at), y_step, y_jump, into, 0, into, 0,
        1, columns, address(_RAMP, 0), 0, 0, 0, jumps, steps, alpha, 1,
    )  # fmt: skip


@njit(_BY_ROWS, nogil=True, cache=True)
def row_products(x, x_at, x_row, y, y_at, y_row, c, c_at, c_row, rows, columns, depth):
    """c[i, j] ← Σ_k x[i, k] · y[j, k]; arguments as for `product`, columns and depth multiples of LANES."""
    _call_dots(address(x, x_at), x_row, address(y, y_at), y_row, address(c, c_at), c_row, rows, columns, depth)
