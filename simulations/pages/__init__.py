"""Simulations and sweeps as one page."""
