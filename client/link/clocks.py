"""This host's clock against the server's: requests, certificates and expiry all hang on it, and it can be put right.

A wrong clock is no broken trust. Whoever meets it waits, says by how much it is wrong, and goes on when it is right.
"""

from __future__ import annotations

import email.utils
import ssl
from datetime import UTC, datetime

from fedsite.protocol.errors import TrustError

AHEAD_S = 5.0  # Flower refuses signatures from further in the future
BEHIND_S = 305.0  # or the past
_NEXT = "switch time synchronisation on (timedatectl set-ntp true); the agent goes on by itself"
_NOT_YET, _NO_LONGER = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class ClockError(TrustError):
    """This host's time does not fit the server's: passes when the clock is put right."""


def clock_skew(date_header: str | None, now: datetime) -> float | None:
    """Seconds this host is ahead of the server, from its Date header (whole seconds)."""
    if date_header is None:
        return None
    try:
        return (now - email.utils.parsedate_to_datetime(date_header)).total_seconds()
    except (ValueError, TypeError):
        return None


def refused(date_header: str | None) -> ClockError | None:
    """Why a signed request was refused, when the clock is the reason."""
    skew = clock_skew(date_header, datetime.now(UTC))
    if skew is None or -BEHIND_S + 1.0 < skew < AHEAD_S:  # the header holds whole seconds
        return None
    return ClockError(
        f"this host's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the server's",
        allowed=f"at most {AHEAD_S:.0f} s ahead and {BEHIND_S - AHEAD_S:.0f} s behind",
        next_step=_NEXT,
    )


def certificate(error: BaseException, address: str) -> ClockError | None:
    """Why the server's certificate was not taken, when its dates are the reason."""
    code = getattr(error, "verify_code", None) if isinstance(error, ssl.SSLCertVerificationError) else None
    if code not in (_NOT_YET, _NO_LONGER):
        return None
    now = datetime.now(UTC)
    words = "is not valid yet" if code == _NOT_YET else "has expired"
    return ClockError(
        f"the certificate of {address} {words} by this host's clock ({now:%Y-%m-%dT%H:%M:%SZ})",
        allowed="a certificate that is valid now",
        next_step=f"compare the clocks (date -u). {_NEXT}. If this clock is right, tell the central team",
    )
