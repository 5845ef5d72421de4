"""Architectures, losses, metrics, and the int8 release of a model."""

import os

# The runtime calls its makers' collector from wherever it is loaded, unless this is set before: a site's hosts call
# their own server and nobody else.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
