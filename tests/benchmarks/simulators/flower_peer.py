"""Flower's simulation on Ray as a contestant: a real ServerApp and ClientApp, `--actors` of them on a processor each.

    python flower_peer.py FOLDER --end FILE [--actors 2]

The server's part is as short as it can be: a message for each site of the cohort, and the mean of the replies.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from works import Clock, Work, waited, write

_works: dict[str, Work] = {}  # one in each actor


def train(message: Any, context: Any) -> Any:
    """One site's round."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

    torch.set_num_threads(1)
    config = message.content["config"]
    folder = str(config["folder"])
    if folder not in _works:
        _works[folder] = Work(Path(folder))
    work = _works[folder]
    module = work.module()
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), message.content["model"].to_numpy_ndarrays(), strict=True):
            parameter.copy_(torch.from_numpy(value))
    optimizer = torch.optim.SGD(module.parameters(), lr=work.rate)
    x, y = work.data(int(config["round"]), int(config["place"]))
    for start in range(0, len(x), work.batch):
        optimizer.zero_grad()
        work.loss(module(x[start : start + work.batch]), y[start : start + work.batch]).backward()
        optimizer.step()
    found = ArrayRecord([value.detach().numpy() for value in module.parameters()])
    return Message(RecordDict({"model": found, "count": ConfigRecord({"windows": len(x)})}), reply_to=message)


def main() -> None:
    """Run until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--end", type=Path, required=True)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--sites", type=int, default=1000)
    options = parser.parse_args()
    here = str(Path(__file__).parent)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0", "PYTHONPATH": here}
    clock, work = Clock(), Work(options.folder)

    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    client, server = ClientApp(), ServerApp()
    client.train()(train)

    @server.main()
    def rounds(grid: Any, context: Any) -> None:
        weights, number = work.start, 0
        nodes: list[int] = []
        for _ in range(600):  # they register one after the other
            nodes = list(grid.get_node_ids())
            if len(nodes) >= work.rows.shape[1]:
                break
            time.sleep(0.1)
        clock.say({"ready": True})
        while waited():
            clock.start()
            model = ArrayRecord(weights)
            messages = [
                Message(
                    RecordDict(
                        {
                            "model": model,
                            "config": ConfigRecord({"folder": str(options.folder), "round": number, "place": place}),
                        }
                    ),
                    dst_node_id=nodes[place],
                    message_type="train",
                )
                for place in range(work.rows.shape[1])
            ]
            total, count = [np.zeros(value.shape) for value in weights], 0
            for reply in grid.send_and_receive(messages):
                windows = int(reply.content["count"]["windows"])
                for into, value in zip(total, reply.content["model"].to_numpy_ndarrays(), strict=True):
                    into += windows * value
                count += windows
            weights = [(value / count).astype(np.float32) for value in total]
            number += 1
            clock.stop()
        write(options.end, weights)

    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=options.sites,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": options.actors, "include_dashboard": False},
        },
    )


if __name__ == "__main__":
    main()
