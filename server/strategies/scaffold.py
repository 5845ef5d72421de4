"""SCAFFOLD: control variates take out of each site's steps what is only that site's, so that unlike sites do not drift.

A site's step is w ← w − η (g + c − c_i), with c_i its own control variate, which it keeps, and c their mean over all N
sites, which it is sent. After K steps, δ_i = w − w_t, it goes on with

    c_i' = c_i − c − δ_i / (K η)                                          (line 12, option II)

and the server, over the |S| sites that took part (lines 16 and 17),

    w_t+1 = w_t + η_g mean δ_i      c' = c + |S|/N · mean(c_i' − c_i) = c + |S|/N · (−c − mean δ_i / (K η))

c_i' − c_i follows from δ_i, so nothing is sent for it: bytes up are FedAvg's, bytes down twice as many. Every site
weighs 1. K counts the steps of the plan, also those whose batch was empty and that were not taken. At a site:
client/work/control.py.

N is the number of sites that accepted the plan so far. When it grows c shrinks accordingly: a new site's c_i is 0.

Source: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020
(arXiv:1910.06378), algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsite.protocol.plan import LocalPlan
from fedsite.server.strategies.step import Step, moved, remembered
from fedsite.server.strategies.strategy import Aggregate, Arrays, ServerState

_SITES = "sites"  # N, as the memory has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold(Step):
    """FedAvg's step over corrected updates; `server_learning_rate` is η_g."""

    local: LocalPlan
    sites: int = 0  # N; 0: as many as ever took part in one round

    def control(self, state: ServerState) -> Arrays:
        """c, float32."""
        known = [name for name in state.params if f"c/{name}" in state.memory] or list(state.params)
        return {name: remembered(state, "c", name).astype(np.float32) for name in known}

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """Move the model, and c.

        Raises:
            ValueError: nobody said which round it is of: its learning rate is needed.
        """
        if aggregate.round < 1:
            raise ValueError(f"the aggregate of round {aggregate.round}")
        before = float(np.asarray(state.memory.get(_SITES, np.zeros(1)))[0])
        sites = max(before, float(self.sites), float(aggregate.sites))
        pace = self.local.steps * self.local.rate(aggregate.round)
        memory = {_SITES: np.array([sites])}
        for name, delta in aggregate.delta.items():
            c = remembered(state, "c", name)
            sent = c.astype(np.float32)  # what the sites took it for
            memory[f"c/{name}"] = (before * c + aggregate.sites * (-sent - delta / pace)) / sites
        change = {name: self.server_learning_rate * delta for name, delta in aggregate.delta.items()}
        return ServerState(params=moved(state.params, change), memory=memory)
