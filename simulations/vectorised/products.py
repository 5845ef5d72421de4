"""Products of small matrices for kernels, cut into the tiles of tiles.py.

Rows lie at equal distances, or where a table says: so a convolution is a product too, and no patches are copied.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from fedsite.simulations.vectorised.tiles import LANES, dots_of, tile_of

_RAMP: Final = np.arange(16)  # rows of a tile at equal distances

_two_rows, _one_row = dots_of(2), dots_of(1)


def _strip(tall: Any, middle: Any, single: Any, heights: tuple[int, int]) -> Any:
    """All rows of a strip of columns; `walk`: whether rows are followed along the table, or along the arrays."""
    most, some = heights

    @njit(nogil=True)
    def strip(
        x, x_at, x_row, x_walk, y, y_at, y_walk, c, c_at, c_row, d, d_at, d_row, rows, table, walk, count, a, add
    ):
        places, first_x, first_c = table
        i = 0
        while i < rows:
            here = (places, first_x + walk * i, first_c + walk * i)
            at = (1 - walk) * i
            k, n, m = x_at + at * x_row, c_at + at * c_row, d_at + at * d_row
            if i + most <= rows:
                tall(x, k, x_row, x_walk, y, y_at, y_walk, c, n, c_row, d, m, d_row, here, count, a, add)
                i += most
            elif i + some <= rows:
                middle(x, k, x_row, x_walk, y, y_at, y_walk, c, n, c_row, d, m, d_row, here, count, a, add)
                i += some
            else:
                single(x, k, x_row, x_walk, y, y_at, y_walk, c, n, c_row, d, m, d_row, here, count, a, add)
                i += 1

    return strip


# As many sums as leave room in 32 registers, and enough of them to hide the time that one takes.
_double = _strip(tile_of(10, 2), tile_of(4, 2), tile_of(1, 2), (10, 4))
_single = _strip(tile_of(10, 1), tile_of(4, 1), tile_of(1, 1), (10, 4))


@njit(nogil=True)
def _strips(
    x, x_at, x_row, x_walk, y, y_at, y_walk, c, c_at, c_row, d, d_at, d_row, rows, columns, table, walk, count, a, add
):
    j = 0
    while j + 2 * LANES <= columns:
        _double(
            x,
            x_at,
            x_row,
            x_walk,
            y,
            y_at + j,
            y_walk,
            c,
            c_at + j,
            c_row,
            d,
            d_at + j,
            d_row,
            rows,
            table,
            walk,
            count,
            a,
            add,
        )
        j += 2 * LANES
    if j < columns:
        _single(
            x,
            x_at,
            x_row,
            x_walk,
            y,
            y_at + j,
            y_walk,
            c,
            c_at + j,
            c_row,
            d,
            d_at + j,
            d_row,
            rows,
            table,
            walk,
            count,
            a,
            add,
        )


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
    _strips(
        x, x_at, x_row, (x_step, 0), y, y_at, (y_step, 0), c, c_at, c_row, c, c_at, c_row,
        rows, columns, (_RAMP, 0, 0), 0, (1, depth), alpha, add,
    )  # fmt: skip


@njit(nogil=True)
def scattered_product(
    x, x_at, x_walk, y, y_at, y_walk, c, c_at, c_row, d, d_at, d_row, rows, columns, table, count, alpha, add
):
    """As `product`, with rows and summed numbers anywhere, and `d` added instead of c.

    Args:
        x: row i begins at x_at + places[first_x + i].
        x_walk, y_walk: distances of summed numbers (step, jump): number (s, k) is s · jump + k · step behind the first.
        c: row i begins at c_at + places[first_c + i] · c_row; it may overlap the next one, and rows are added in order.
        d: row i begins at d_at + places[first_c + i] · d_row.
        table: (places, first_x, first_c); places: [number] int64, read-only.
        count: (jumps, steps).
    """
    _strips(
        x, x_at, 1, x_walk, y, y_at, y_walk, c, c_at, c_row, d, d_at, d_row, rows, columns, table, 1, count, alpha, add
    )


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
