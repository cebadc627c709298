#!/bin/bash
# A node agent for a time slice of one machine: `sbatch pilot.sh` adds the machine to the pool, `sbatch --array=1-4 pilot.sh`
# adds four. Before the slice ends Slurm warns this script, the agent has attempts save their work, and the jobs go on elsewhere.
#SBATCH --job-name=podium-worker
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# To this script alone, 180 seconds before the end: the agent gives attempts 120.
#SBATCH --signal=B:USR1@180
set -euo pipefail

# PODIUM_REDIS_URL, PODIUM_ARTIFACTS and the rest, in the form of deploy/systemd/podium.env.
settings=${PODIUM_ENV:-$HOME/podium.env}
if [[ ! -r $settings ]]; then
    echo "$settings cannot be read; write the settings there, or name another file: PODIUM_ENV=file sbatch pilot.sh" >&2
    exit 2
fi
set -a
# shellcheck source=/dev/null
source "$settings"
set +a

agent=
# shellcheck disable=SC2329  # the trap calls it
drain() {
    echo "$(date --iso-8601=seconds) draining"
    [[ -z $agent ]] || kill -TERM "$agent" 2>/dev/null || true
}
# USR1 before the end of the slice or a preemption, TERM from whoever cancels with `scancel --batch --signal=TERM JOB`.
trap drain USR1 TERM

# `python` is that of the environment in which sbatch was called. The name is the machine's, so that the agent of its next
# slice buries what this one may leave.
python -m podium.worker --node "${SLURMD_NODENAME:-$(hostname)}" "${@:---gpus=all}" &
agent=$!

# A trapped signal ends `wait` before the agent has ended.
while kill -0 "$agent" 2>/dev/null; do
    wait "$agent" && status=0 || status=$?
done
exit "$status"
