"""Local training of many simulated sites at once: one description of the work, several ways to do it, equal results."""
