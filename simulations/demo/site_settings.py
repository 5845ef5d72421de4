"""What each site of a demo is set to: its own data, and its consent to what this run asks."""

from __future__ import annotations

from fedsite.client.settings import PolicySettings
from fedsite.protocol.secagg.manifest import Terms
from fedsite.server.settings import LaunchSettings
from fedsite.telemetry.location import DataLocation


def overrides(asked: LaunchSettings, data: DataLocation) -> list[str]:
    """The overrides that `fedsite up` and `fedsite score` get.

    Args:
        asked: what the launch will be told.
        data: of this site.
    """
    found = [f"data.site={data.site}", f"data.seed={data.seed}"]
    if data.path is not None:
        found.append(f"data.path={data.path.absolute()}")
    # Each site's own opt-in to what this run asks beyond a site's cautious defaults.
    if asked.privacy.mode == "none":
        found.append("policy.require_privacy=false")
    if asked.protection.mode == "none":
        found.append("policy.minimum_protection=none")
    least = asked.protection.terms.min_survivors or Terms().min_survivors
    if asked.protection.mode == "secagg" and least < PolicySettings().cohort_min:
        found.append(f"policy.cohort_min={least}")
    claims = [claim for claim in (asked.privacy.epsilon, asked.privacy.site.epsilon) if claim is not None]
    if claims:
        found.append(f"policy.epsilon_max={max(claims) * 1.001:.6g}")
    return found
