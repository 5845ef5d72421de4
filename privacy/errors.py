"""What privacy refuses: the same three fields as the product's error tree, which this layer may not import."""

from __future__ import annotations


class PrivacyError(ValueError):
    """A mechanism, budget or source of randomness cannot give the guarantee it was asked for.

    Args:
        found: what is wrong, with the value found, as one sentence without a full stop.
        allowed: the values allowed; empty when there is nothing to choose from.
        next_step: the next thing to do; empty when there is none.
    """

    def __init__(self, found: str, *, allowed: str = "", next_step: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.allowed = allowed
        self.next_step = next_step

    def __str__(self) -> str:
        parts = [self.found]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.next_step:
            parts.append(f"next: {self.next_step}")
        return "; ".join(parts)
