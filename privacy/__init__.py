"""Differential privacy: sampling, clipping, mechanisms, accounting."""
