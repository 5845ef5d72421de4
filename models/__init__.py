"""Architectures, losses, metrics, and the int8 release of a model."""
