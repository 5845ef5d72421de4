"""The largest numbers of squares, a vector of channels at a time, as vector instructions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fedsite.simulations.vectorised.tiles import VECTOR, vector_at


@intrinsic
def largest(typing, x, places, count, into):
    """A vector at `into` ← the largest of those at x + places[0 … count]; NaN wins, and stays."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, places, count, into = arguments
        best = cgutils.alloca_once(builder, VECTOR)
        with cgutils.for_range(builder, count) as loop:
            value = builder.load(vector_at(builder, x, builder.load(builder.gep(places, [loop.index]))), align=4)
            first = builder.icmp_signed("==", loop.index, loop.index.type(0))
            before = builder.select(first, value, builder.load(best))
            wins = builder.or_(builder.fcmp_ordered(">", value, before), builder.fcmp_unordered("uno", value, value))
            builder.store(builder.select(wins, value, before), best)
        builder.store(builder.load(best), vector_at(builder, into, count.type(0)), align=4)
        return context.get_dummy_value()

    return types.void(x, places, count, into), generate


@intrinsic
def hand_back(typing, x, places, count, best, derivative, into):
    """Add the vector at `derivative` to those of `into` + places whose number in `x` is the first equal to `best`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, places, count, best, derivative, into = arguments
        zero, start = ir.Constant(VECTOR, [0.0] * VECTOR.count), count.type(0)
        left = cgutils.alloca_once(builder, VECTOR)
        builder.store(builder.load(vector_at(builder, derivative, start), align=4), left)
        wanted = builder.load(vector_at(builder, best, start), align=4)
        with cgutils.for_range(builder, count) as loop:
            place = builder.load(builder.gep(places, [loop.index]))
            hit = builder.fcmp_ordered("==", builder.load(vector_at(builder, x, place), align=4), wanted)
            target, rest = vector_at(builder, into, place), builder.load(left)
            share = builder.select(hit, rest, zero)
            builder.store(builder.fadd(builder.load(target, align=4), share), target, align=4)
            builder.store(builder.select(hit, zero, rest), left)
        return context.get_dummy_value()

    return types.void(x, places, count, best, derivative, into), generate
