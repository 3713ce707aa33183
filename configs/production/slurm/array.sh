#!/bin/bash
# sbatch array.sh region.toml: eight parts of a region side by side, each with a GPU of its own.
#SBATCH --job-name=citycover
#SBATCH --array=1-8
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --output=citycover-%A-%a.log
# SIGTERM two minutes before the time is over: the block in hand is finished, and the job is queued anew to go on.
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

region=${1:?the region file is missing: sbatch array.sh region.toml}
part=${SLURM_ARRAY_TASK_ID:?not in an array: use sbatch}
parts=${SLURM_ARRAY_TASK_COUNT:?not in an array: use sbatch}

# Before the run is begun: a signal in between would end this script alone.
trap 'kill -TERM $(jobs -p)' TERM
citycover run "$region" -q --shard "$part/$parts" --metrics "citycover-$part.prom" &
run=$!
code=0
wait $run || code=$?
# A trapped signal ends `wait` before the run has ended.
while kill -0 $run 2> /dev/null; do code=0; wait $run || code=$?; done

if [ "$code" -eq 143 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
