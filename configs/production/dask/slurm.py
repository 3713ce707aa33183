"""A region on SLURM, 1 to 16 workers as there is work: `python slurm.py region.toml`. Needs dask-jobqueue.

The region file names no cluster: this script does. For PBS or LSF take PBSCluster or LSFCluster.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from dask_jobqueue import SLURMCluster

from citycover.region.config import read_region
from citycover.region.run import run_region

WORKERS = 16

cluster = SLURMCluster(
    cores=1,  # one thread a worker: torch has threads of its own
    processes=1,
    job_cpu=8,
    memory="32GB",
    walltime="04:00:00",
    job_extra_directives=["--gres=gpu:1"],
    # A worker ends itself before its time is over, so that what it has in hand is finished.
    worker_extra_args=["--lifetime", "225m", "--lifetime-stagger", "10m"],
)
cluster.adapt(minimum=1, maximum=WORKERS)
region = read_region(Path(sys.argv[1]))
engine = replace(region.engine, scheduler=cluster.scheduler_address)
report = run_region(region.model_copy(update={"engine": engine}))
print(report.counts)
sys.exit(3 if any(outcome.failed for outcome in report.outcomes) else 0)
