"""Configuration groups (YAML only)."""
