"""Which windows lie at which simulated site, how its sensors differ, and what drifts."""
