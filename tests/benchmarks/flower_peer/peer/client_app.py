"""The peer's site: one SGD step of the same network in a stock Flower ClientApp."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from peer.network import network

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One optimizer step on random windows: what the trivial plan asks of a fedsite site."""
    torch.set_num_threads(1)
    model = network(int(context.run_config["inputs"]))
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(64, int(context.run_config["inputs"])), torch.randn(64, 1)
    torch.nn.functional.mse_loss(model(x), y).backward()
    optimizer.step()
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": 64})})
    return Message(content=content, reply_to=message)
