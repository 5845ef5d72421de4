"""The peer's server: Flower's own FedAvg loop, with the time of each round written down."""

import json
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from peer.network import network

app = ServerApp()


class TimedFedAvg(FedAvg):
    """FedAvg that notes when a round's instructions are made and when its sum is done."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
        self.seconds: list[float] = []

    def configure_train(self, *args, **kwargs):
        """Start the clock once both nodes are there: waiting for them is not part of a round."""
        messages = list(super().configure_train(*args, **kwargs))
        self.began = time.perf_counter()
        return messages

    def aggregate_train(self, *args, **kwargs):
        """Stop the clock after the sum."""
        result = super().aggregate_train(*args, **kwargs)
        self.seconds.append(time.perf_counter() - self.began)
        return result


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run FedAvg and write the seconds per round."""
    strategy = TimedFedAvg()
    arrays = ArrayRecord(network(int(context.run_config["inputs"])).state_dict())
    strategy.start(grid, arrays, num_rounds=int(context.run_config["rounds"]))
    Path(str(context.run_config["out"])).write_text(json.dumps(strategy.seconds))
