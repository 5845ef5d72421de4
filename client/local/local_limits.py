"""What the local API takes at most; docs/protocol.md says the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SERVICE: Final = "fedsite.local.v1.Agent"
MAX_MESSAGE: Final = 1 << 20  # bytes, not compressed: what comes stays small beside an idle agent
MAX_WINDOWS: Final = 1 << 16  # of one message
MAX_METADATA: Final = 8 << 10  # bytes
MAX_CONNECTIONS: Final = 16
CALLS: Final[Mapping[str, int]] = {"Watch": 4, "Score": 2, "": 6}  # at once; "": all others together
REQUEST_S: Final = 10.0  # until a call's first message is there
WINDOWS_S: Final = 300.0  # between two messages of a stream of windows
HEARTBEAT_S: Final = 15.0  # longest silence of a watch
