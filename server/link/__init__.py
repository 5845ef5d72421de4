"""The way to the sites: Flower's SuperLink behind a guard, and what the round loop sees of it."""
