"""The commented `site.yaml` that `fedsite policy init` writes: every setting, at its default, with what it means."""

from __future__ import annotations

from typing import Final

TEXT: Final = """\
# site.yaml: what this site has and what it allows. The centre neither sees nor sets any of it.
#
# Every line below stands at its default; delete what you do not need. `fedsite policy show` prints what holds,
# `fedsite policy test PLAN.json` what it says to a plan. A running agent looks at `data` and `policy` before every
# instruction, so a change holds at once; a file that cannot be read allows nothing. `agent`, `policy.cpu_threads` and
# `policy.niceness` are read when the agent starts.
schema: fedsite.site/1

data:
  path: null            # a file or folder: CSV, Parquet or npz; null: what the task itself says
  site: null            # value of the task's site column, where one file holds several sites
  columns: {}           # the task's channel: your column, with your unit where it differs, such as "TT-101 [degF]"
  seed: 0               # of the synthetic plant
  oldest: null          # how old the newest reading may be, such as 2d; null: any age
  tasks: {}             # for single tasks: {pump: {path: /data/pump.csv, columns: {...}}}

policy:
  # What may run.
  tasks: null           # [pump, engine_rul@sha256:HASH]; null: any. Under a name alone the centre may write another
                        # task each time; fedsite policy test PLAN.json prints the entry for a document
  models: null          # architectures, or SHA-256 of the weights a run may start from; null: any
  strategies: null      # [fedavg, fedprox]; null: any
  approval: automatic   # once: a person agrees to a run, and later runs launched the same way need nobody;
                        # each: a person agrees to every run (fedsite rounds); automatic: these rules alone decide

  # How what leaves is protected.
  minimum_protection: sealed   # secagg: sums only; sealed: the server may see this site's own update; none: anybody
  cohort_min: 3         # sites that a sum must be over, this one included
  colluding_min: 0      # sites that may side with the server, against which a secure sum must hold
  require_privacy: true # false: runs without differential privacy are allowed, and are not private
  units: null           # [entity, site]: a private run must make its claim for one of these; window is one reading's
                        # window alone; null: any of the three

  # What it may cost, in ε at `delta`, for each privacy unit.
  epsilon_max: 10.0     # all runs on the same data together, for good
  epsilon_task: null    # all runs of one task on the same data
  epsilon_round: null   # one round by itself
  delta: 1.0e-05
  steps_max: 100000     # training steps in one round
  bytes_max: 1073741824 # bytes of one instruction

  # When and how work begins; what has begun is finished.
  hours: []             # local time: ["22:00-06:00", "sat,sun 00:00-24:00"]; empty: always
  mains_only: false     # not on battery
  no_metered: false     # not on a metered network (agent.metered)
  max_celsius: null     # not while the processor is hotter
  memory_free: null     # bytes that must be free
  load_max: null        # not while more processes want to run, per processor
  cpu_threads: 1        # of the training process
  niceness: 0           # of the training process; 19 yields to everything else

agent:
  worker_memory: null   # bytes the training process may take; null: half of this host's; 0: no bound
  idle_worker_s: 300.0  # seconds without work after which the training process ends
  operation_s: 3600.0   # seconds one instruction may take when it names no end
  metered: auto         # yes or no, where the network manager does not know
  log: info             # debug, info or warning
"""
