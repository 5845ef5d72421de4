"""One certificate authority for federations in memory: making a key each time would be most of a small test."""

from datetime import UTC, datetime

from fedsite.protocol import certificates

AUTHORITY = certificates.make_authority("00" * 16, "test", datetime(2026, 1, 1, tzinfo=UTC))
