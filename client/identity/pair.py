"""A site's TLS key and its certificate in one file: they change together, and a crash leaves the old pair or the new.

Everything that asks when the certificate ends reads it here, so that no other file can say otherwise.
"""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

from fedsite.protocol import certificates, instants, storage
from fedsite.protocol.certificates import Checked
from fedsite.protocol.errors import FedsiteError, TrustError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import TlsKey, read_secret

FILE = "tls.pem"
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_NEXT = "ask the central team for a new token, then fedsite join file:TOKENFILE"


def save(directory: Path, key: TlsKey, certificate: str) -> None:
    """Replace the pair.

    Raises:
        TrustError: they do not fit; nothing was written.
        StorageError: the disk is full or read-only; the old pair is untouched.
    """
    if not certificates.same_key(certificate, key):
        raise TrustError("a certificate for another key than this site asked with", next_step=_NEXT)
    pem = ssl.DER_cert_to_PEM_cert(certificates.der(certificate))  # alone, without what may stand around it
    storage.write_atomic(directory / FILE, key.pem + pem.encode("ascii"))


def certificate(directory: Path) -> str:
    """The certificate, PEM.

    Raises:
        StorageError: there is none, or it cannot be read.
        TrustError: others can read the key beside it, or the file is damaged.
    """
    return _split(directory)[1]


def expires(directory: Path) -> str:
    """The certificate's end (RFC 3339); empty where there is none that can be read."""
    try:
        return instants.text(certificates.dates(certificate(directory))[1])
    except FedsiteError:
        return ""


def check(directory: Path, federation: Federation, now: datetime) -> Checked:
    """What the certificate says, once key, certificate and federation were found to belong together, and in time.

    Raises:
        TrustError: they do not, or it is not in time.
        StorageError: there is no pair.
    """
    key, pem = _split(directory)
    found = certificates.check(pem, federation, now)
    if not certificates.same_key(pem, key):
        raise TrustError(f"key and certificate in {directory / FILE} do not fit", next_step=_NEXT)
    return found


def tls(directory: Path, federation: Federation) -> ssl.SSLContext:
    """TLS towards the federation's server with this pair; raises as `check`, which comes first."""
    from fedsite.client.link.flower_client import site_tls  # brings Flower, which `fedsite status` can do without

    return site_tls(federation, str(directory / FILE))


def _split(directory: Path) -> tuple[TlsKey, str]:
    path = directory / FILE
    data = read_secret(path)
    start = data.find(_BEGIN)
    if start < 0:
        raise TrustError(f"{path} holds no certificate", allowed="a key and its certificate", next_step=_NEXT)
    return TlsKey.parse(data[:start], str(path)), data[start:].decode("ascii", "replace")
