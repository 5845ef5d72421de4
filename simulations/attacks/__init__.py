"""Attacks on a federation that is simulated: sites that poison, and a server that looks into updates."""
