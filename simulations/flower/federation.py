"""A federation that exists for one simulated run: keys, plan, the run's directory, and its sites' directories."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from fedsite.models import vector
from fedsite.protocol import certificates, certified, ids, instants, weights
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.plan import LONGEST_S, ReleasePlan, RoundPlan
from fedsite.server.link.transport import SiteLink
from fedsite.server.runs.folder import Launch, RunDirectory
from fedsite.simulations.engine import Scale
from fedsite.simulations.flower.site import Place
from fedsite.simulations.runs.material import Material
from fedsite.simulations.vectorised.job import Layout, Weights

STAGE_S: Final = 86_400.0  # of a stage of a secure sum: virtual sites take turns on few cores
CERTIFIED: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFederation:
    """What a server has when a run is launched, and a site when it has joined."""

    plan: RoundPlan
    run: RunDirectory
    key: SigningKey = field(repr=False)  # signs instructions
    sites: tuple[SiteLink, ...]  # by number, not yet at a node
    folder: Path  # of the sites' directories


def place(folder: Path, number: int) -> Place:
    """Where site `number` is."""
    return Place(number=number, directory=folder / f"{number:06d}")


def make(given: Material, scale: Scale, folder: Path, initial: Weights | None) -> SimulatedFederation:
    """Make keys, write every site's directory, and launch the run as far as its files."""
    now, key = datetime.now(UTC), SigningKey.generate()
    authority = certificates.make_authority(key.public.id, "simulation", now)
    federation = Federation(
        id=key.public.id,
        name="simulation",
        address="localhost:1",
        ca_certificate=authority.certificate,
        signing_key=key.public.text,
    )
    module = given.job.module()
    if initial is None:
        initial = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    start = {name: np.array(value) for name, value in initial.items()}
    plan = planned(
        given.plan, federation.id, instants.text(now), scale, len(given.sites),
        init_hash=weights.digest(start), parameters=vector.parameters(module),
    )  # fmt: skip
    run = RunDirectory(folder / "runs" / plan.run_id)
    run.create(plan, start, Launch(trained=tuple(sorted(Layout.of(module).names))))
    links = []
    for number in range(len(given.sites)):
        where = place(folder / "sites", number)
        identity = where.make(federation).public
        shown = certified.issue(identity, now + CERTIFIED, federation.id, authority.key)
        links.append(
            SiteLink(site_id=identity.id, name=where.name, node_id="", public_key=identity, certified=shown)
        )  # fmt: skip
    return SimulatedFederation(plan=plan, run=run, key=key, sites=tuple(links), folder=folder / "sites")


def planned(
    plan: RoundPlan, federation: str, created: str, scale: Scale, sites: int, *, init_hash: str, parameters: int
) -> RoundPlan:
    """The plan, but for what is of this run, its release, and deadlines: taking turns is no delay of a site."""
    cohort = min(scale.cohort, sites)
    return replace(
        plan,
        federation=federation,
        run_id=ids.ulid(),
        created=created,
        model=replace(plan.model, init_hash=init_hash, parameters=parameters),
        rounds=replace(
            plan.rounds,
            count=scale.rounds,
            minimum=min(plan.rounds.minimum, cohort),
            goal=cohort if cohort < sites else None,
            over_select=1.0,
            deadline_s=LONGEST_S,
            patience=1,
        ),
        protection=replace(plan.protection, sites=max(plan.protection.sites, cohort), stage_s=STAGE_S),
        release=ReleasePlan(enabled=False),
    )
