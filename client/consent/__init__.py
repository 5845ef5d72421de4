"""Whether a run may happen here: the rules, the host, the operator."""
