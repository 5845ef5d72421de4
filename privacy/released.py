"""Everything that depends on a site's data and leaves the site: with its mechanism and charge, or "not private".

docs/privacy.md holds this table as text (a test compares them) and the threat model points to it. Whoever adds a value
to a reply adds a row here.
"""

from __future__ import annotations

from dataclasses import dataclass

NOT_PRIVATE = "not private"


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """One thing that leaves."""

    name: str  # as in the reply, or what an observer sees
    when: str  # instruction that asks for it
    bound: str  # what one privacy unit can change, under privacy
    mechanism: str  # under privacy; `NOT_PRIVATE` where nothing hides it
    charge: str  # what `models.spends` counts; "none" for constants and for what is not private


TABLE = (
    Released(
        name="statistics/count, statistics/sum, statistics/square",
        when="statistics",
        bound="readings clipped to the schema's ranges, then all sums of a unit together to √(1 + features / 4); the "
        "means of its windows where a site is the unit",
        mechanism="Gaussian on a grid, per site Skellam in the sum; left out when statistics_noise is 0 (the schema's "
        "ranges normalise)",
        charge="statistics_noise, once a run",
    ),
    Released(
        name="delta/<parameter>, privacy sample or both",
        when="train",
        bound="gradient of one window or entity clipped to privacy.clip, in each step that samples it",
        mechanism="DP-SGD: Poisson sampling, Gaussian on a grid, divided by the public privacy.batch",
        charge="noise_multiplier at sampling_rate, local.steps × rounds",
    ),
    Released(
        name="delta/<parameter>, privacy site or both",
        when="train",
        bound="the site's whole update, clipped to privacy.site.clip in L2 norm and rounded to the grid of the sum",
        mechanism="Skellam (or discrete Gaussian) in the sum only: under the masks each site adds 1 / (min_survivors − "
        "colluding) of its variance",
        charge="site.noise_multiplier per site, rounds",
    ),
    Released(
        name="weight",
        when="train",
        bound="none: the constant 1",
        mechanism="a public constant (without privacy: the number of windows, under secagg in a sum; with SCAFFOLD the "
        "constant there too)",
        charge="none",
    ),
    Released(
        name="loss",
        when="train",
        bound="none: never sent",
        mechanism="left out under privacy",
        charge="none",
    ),
    Released(
        name="step count",
        when="train",
        bound="none: the plan's",
        mechanism="a public constant; an empty sample is a step of pure noise",
        charge="none",
    ),
    Released(
        name="evaluation/<sum>",
        when="train, evaluate",
        bound="errors clipped to metric.maximum, one count a unit, its windows averaged: models.metrics.sensitivity",
        mechanism="Gaussian on a grid, per site Skellam in the sum; left out when evaluation_noise is 0",
        charge="evaluation_noise, each evaluation",
    ),
    Released(
        name="parity/<sum> (the int8 model's)",
        when="evaluate",
        bound="none: never sent",
        mechanism="left out under privacy",
        charge="none",
    ),
    Released(
        name="calibration/positive, calibration/negative, calibration/score",
        when="calibrate",
        bound="one count a unit in each histogram: models.calibration.sensitivity; per site its largest values",
        mechanism="Gaussian on a grid, per site Skellam in the sum; never asked when calibration_noise is 0",
        charge="calibration_noise, once a run",
    ),
    Released(
        name="advert, shares, confirmation, opened (secagg)",
        when="advertise, share, confirm, unmask",
        bound="none: keys and shares of a sum's own randomness, made before data is read",
        mechanism="random, and the same whatever the data",
        charge="none",
    ),
    Released(
        name="masked (secagg)",
        when="statistics, train, evaluate, calibrate",
        bound="the values above, rounded to a grid; charged with them, whether or not the sum is ever opened",
        mechanism="uniform over Z_2^32 to whoever lacks a threshold of the neighbours' shares; for the sum see above",
        charge="none",
    ),
    Released(
        name="which sites are in a sum (secagg)",
        when="every sum",
        bound="a site's presence, to the server and to its cohort; zero-out of one site's values does not change it",
        mechanism=NOT_PRIVATE,
        charge="none",
    ),
    Released(
        name="outcome and refusal code",
        when="every instruction",
        bound="one code of a public list; data-missing, data-contract, too-few-windows, plan-invalid (δ against the "
        "number of units) and budget (whose records earlier runs have read) depend on data",
        mechanism=NOT_PRIVATE,
        charge="none",
    ),
    Released(
        name="time and size of a reply",
        when="every instruction",
        bound="size is the plan's; the time taken grows with the number of windows and with the batches drawn",
        mechanism=NOT_PRIVATE,
        charge="none",
    ),
    Released(
        name="whether a site is online and takes part",
        when="every round",
        bound="the site's schedule and its remaining budget",
        mechanism=NOT_PRIVATE,
        charge="none",
    ),
)


def markdown() -> str:
    """The table for docs/privacy.md."""
    lines = ["| value | asked by | one unit changes | under privacy | charge |", "|---|---|---|---|---|"]
    lines += [f"| `{row.name}` | {row.when} | {row.bound} | {row.mechanism} | {row.charge} |" for row in TABLE]
    return "\n".join(lines) + "\n"
