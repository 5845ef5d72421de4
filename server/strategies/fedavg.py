"""FedAvg: the next model is the mean of the sites' models, weighted by their examples.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
algorithm 1. Written with deltas, as Reddi et al. 2021 do: w ← w + η Σ n_k δ_k / Σ n_k; η = 1 is McMahan's.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedsite.server.strategies.step import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvg(Step):
    """Weighted mean of the updates, times a server learning rate: what strategies have in common, and no more."""
