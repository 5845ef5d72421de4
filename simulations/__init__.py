"""The researcher: demo, baselines, report."""
