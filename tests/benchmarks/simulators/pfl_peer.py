"""pfl-research 0.6.0 as a contestant: its FederatedAveraging, SimulatedBackend and PyTorchModel, one resident model.

    python pfl_peer.py FOLDER --end FILE [--rank R --of N --port P]

With several processes each is started with its rank; they meet on loopback as torchrun would have them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from works import Clock, Work, waited, write


def main() -> None:
    """Run until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--end", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    if options.of > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "simulation",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(options.port),
            "RANK": str(options.rank),
            "WORLD_SIZE": str(options.of),
            "LOCAL_RANK": str(options.rank),
            "LOCAL_WORLD_SIZE": str(options.of),
        }
    torch.set_num_threads(1)
    clock, work = Clock(), Work(options.folder)

    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    class Module(nn.Module):
        """What pfl asks of a model."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = work.module()

        def loss(self, x: Tensor, y: Tensor) -> Tensor:
            return work.loss(self.inner(x), y)

        def metrics(self, x: Tensor, y: Tensor) -> dict[str, Any]:
            return {}

    class Gate(TrainingProcessCallback):
        """Says how long a round took, and waits until the next may begin."""

        def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
            clock.stop()
            if not waited():
                return True, Metrics()
            clock.start()
            return False, Metrics()

    order = iter(_order(work))
    data = FederatedDataset(lambda user: Dataset(work.data(*user), user_id=str(user)), lambda: next(order))
    module = Module()
    model = PyTorchModel(
        model=module,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
    )
    rounds, cohort, windows = work.rows.shape
    clock.say({"ready": True})
    if not waited():
        return
    clock.start()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds, evaluation_frequency=rounds + 1, train_cohort_size=cohort, val_cohort_size=0
        ),
        backend=SimulatedBackend(training_data=data, val_data=data),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=work.rate, local_batch_size=work.batch
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=windows),
        callbacks=[Gate()],
        send_metrics_to_platform=False,
    )
    if options.rank == 0:
        write(options.end, [value.detach().numpy() for value in module.parameters()])


def _order(work: Work) -> Iterator[tuple[int, int]]:
    for number in range(work.rows.shape[0]):
        for place in range(work.rows.shape[1]):
            yield number, place


if __name__ == "__main__":
    main()
