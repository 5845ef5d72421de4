"""Which models are one stack of dense layers: their gradients can be written down instead of traced."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedsite.models import catalog
from fedsite.models.autoencoder import Autoencoder
from fedsite.models.mlp import MLP
from fedsite.simulations.vectorised.job import Job

LOSSES = ("binary_cross_entropy", "cross_entropy", "mse", "reconstruction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """Linear layers with one activation between them; parameters are weight, bias, weight, bias, …"""

    sizes: tuple[int, ...]  # numbers between the layers, from input to output
    activation: str  # relu, leaky_relu or tanh

    @property
    def layers(self) -> int:
        """Linear ones."""
        return len(self.sizes) - 1


def dense(job: Job) -> Dense | None:
    """The stack that a job trains, or None where the model is another, or only part of it is trained."""
    module = job.module()
    if type(module) not in (MLP, Autoencoder) or job.loss not in LOSSES:
        return None
    if not all(parameter.requires_grad for parameter in module.parameters()):
        return None
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    sizes = (linear[0].in_features, *(layer.out_features for layer in linear))
    return Dense(sizes=sizes, activation=catalog.check(job.model.name, job.model.options)["activation"])
