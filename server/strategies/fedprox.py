"""FedProx: FedAvg at the server; at the sites each step is pulled back to the round's model by μ (w − w_t).

μ is `local.proximal` in the plan; conf/strategy/fedprox.yaml sets it. The term itself is in client/work/train.py and in
the simulation's executors.

Source: Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020 (arXiv:1812.06127), algorithm 2 and
equation 2. Its sites may do unequal amounts of work; here each takes `local.steps`. Its server averages sites drawn by
their number of windows; here they are weighted by it, as in FedAvg.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan
from fedsite.server.strategies.step import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class FedProx(Step):
    """Weighted mean of updates of sites that stay close to the round's model."""

    local: LocalPlan

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        if not self.local.proximal > 0:
            raise ConfigError(
                "strategy=fedprox with local.proximal 0",
                allowed="local.proximal above 0: without it this is FedAvg",
                next_step="local.proximal=0.1, or strategy=fedavg",
            )
