"""The network both sides train: an MLP of the size of the shipped `engine_rul` model."""

import torch


def network(inputs: int) -> torch.nn.Module:
    """inputs-64-32-1 with tanh."""
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, 64), torch.nn.Tanh(), torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)
    )
