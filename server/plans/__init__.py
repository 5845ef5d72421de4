"""From settings to a plan: what it promises, costs and may not combine."""
