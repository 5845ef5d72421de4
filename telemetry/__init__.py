"""From telemetry files to windows: schema, sources, windows, features, statistics."""
