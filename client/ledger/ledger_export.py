"""The site's ledger as one signed file, for whoever has to be shown it: checked offline, with nothing but the file.

It holds no name of an entity and no path: sources are keyed hashes, the same in every export of a site. The figures are
made anew from the spends when it is verified, so that a signature is not taken for arithmetic.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fedsite.client.identity.site import Site
from fedsite.client.ledger import accounts as ledger
from fedsite.client.ledger.budget_entries import Entry, as_values, from_values, larger
from fedsite.client.ledger.budget_mark import Mark
from fedsite.client.ledger.prices import epsilon
from fedsite.client.settings import PolicySettings
from fedsite.privacy.accounting import Spend
from fedsite.privacy.errors import PrivacyError
from fedsite.protocol import documents, envelope
from fedsite.protocol.errors import DocumentError, IntegrityError, TrustError
from fedsite.protocol.keys import VerifyKey
from fedsite.protocol.plan import SITE

SCHEMA: Final = "fedsite.ledger/1"
LIMIT: Final = 64 << 20  # bytes
_LABEL: Final = "fedsite/sig/ledger/1"
_SLACK: Final = 1e-3  # relative: another machine's floating point, no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What an export says, once it is believed."""

    site_id: str
    name: str
    federation: str
    created: str
    sequence: int
    runs: int
    accounts: int


def export(site: Site, entries: Sequence[Entry], rules: PolicySettings, mark: Mark | None, now: str) -> bytes:
    """The signed file.

    Args:
        site: whose it is, and whose key signs it.
        entries: of the whole budget.
        rules: the caps, and the δ of all figures.
        mark: how far the budget was written; None where there is none.
        now: RFC 3339.

    Raises:
        PrivacyError: no accountant can answer.
    """
    key = site.key.derive("ledger/sources")
    accounts = []
    for unit, name in ledger.keys(entries):
        account = ledger.source(unit, name, entries, rules)
        found = sorted(entry.run_id for entry in ledger.counted(unit, name, entries))
        accounts.append({**account, "source": _hidden(key, name), "runs": found})
    value = {
        "schema": SCHEMA,
        "site": {"id": site.id, "name": site.name, "public_key": site.key.public.text},
        "federation": site.federation.id,
        "created": now,
        "budget": None if mark is None else mark.budget,
        "sequence": 0 if mark is None else mark.sequence,
        **ledger.caps(rules),
        "accounts": accounts,
        "runs": [
            {
                **ledger.run(entry, rules.delta),
                "source": _hidden(key, ledger.WHOLE_SITE if entry.unit == SITE else entry.source),
                "finished": entry.finished,
                "entities": None if entry.covered is None else len(entry.covered.spans),
                "reserved": as_values(entry.reserved),
                "spent": as_values(entry.spent),
            }
            for entry in entries
        ],
    }
    return envelope.wrap(_LABEL, value, site.key)


def verify(data: bytes) -> Verified:
    """Check an export: its signature, and that its figures are no smaller than its spends make them.

    Whose it is is for the reader to compare: the id names the key.

    Raises:
        DocumentError: not such a file.
        TrustError: the signature, or the id, does not fit the key in it.
        IntegrityError: a figure is too small, or a run is missing from an account.
        PrivacyError: no accountant can answer.
    """
    outer = documents.parse(data, limit=LIMIT)
    signed = outer.get("signed") if isinstance(outer, Mapping) else None
    site = signed.get("site") if isinstance(signed, Mapping) else None
    if not isinstance(site, Mapping) or not isinstance(site.get("public_key"), str):
        raise DocumentError("it is not an exported ledger", allowed="a file made by: fedsite privacy --export FILE")
    key = VerifyKey.parse(site["public_key"])
    value = envelope.unwrap(_LABEL, data, key, "ledger", limit=LIMIT)
    documents.check_schema(value, SCHEMA)
    if site.get("id") != key.id:
        raise TrustError(f"the ledger names site {site.get('id')}", allowed=f"{key.id}, whose key is in it")
    try:
        _check_figures(value)
        return Verified(
            site_id=key.id,
            name=str(site["name"]),
            federation=str(value["federation"]),
            created=str(value["created"]),
            sequence=int(value["sequence"]),
            runs=len({run["run_id"] for run in value["runs"]}),
            accounts=len(value["accounts"]),
        )
    except PrivacyError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DocumentError(f"the ledger lacks or garbles {error}", allowed=f"a document of {SCHEMA}") from None


def _check_figures(value: Mapping[str, Any]) -> None:
    delta = float(value["delta"])
    charged: dict[tuple[str, str], Sequence[Spend]] = {}
    for run in value["runs"]:
        run_id, unit = str(run["run_id"]), str(run["unit"])
        spent, reserved = from_values(run["spent"]), from_values(run["reserved"])
        _check(f"run {run_id}, spent", run["epsilon_spent"], epsilon(spent, delta, unit))
        counts: Sequence[Spend] = spent if run["state"] == "finished" else larger(reserved, spent)
        _check(f"run {run_id}, reserved", run["epsilon_reserved"], epsilon(counts, delta, unit))
        charged[unit, run_id] = counts
        account = [one for one in value["accounts"] if (one["unit"], one["source"]) == (unit, run["source"])]
        if len(account) != 1 or run_id not in account[0]["runs"]:
            raise IntegrityError(f"run {run_id} is in no account per {unit}", allowed="each run in that of its source")
    for account in value["accounts"]:
        unit = str(account["unit"])
        spends = [spend for run_id in account["runs"] for spend in charged[unit, str(run_id)]]
        _check(f"account {account['source']} per {unit}", account["epsilon"], epsilon(spends, delta, unit))


def _check(what: str, stated: Any, made: float) -> None:
    # Written so that NaN is refused.
    if not float(stated) >= made * (1 - _SLACK):
        raise IntegrityError(f"{what}: ε {float(stated):.4g} where its spends make {made:.4g}", allowed="no smaller")


def _hidden(key: bytes, source: str) -> str:
    return hmac.digest(key, source.encode("utf-8", "surrogatepass"), hashlib.sha256)[:8].hex()
