#!/bin/bash
# Run a study on Slurm: one Ray node on each node of the job, the driver on the first.
#
#   sbatch --nodes=8 examples/slurm.sh STUDY.yaml
#
# Ten minutes before the time limit the run is asked to stop: its trials write checkpoints, and the job is queued again.
# Submit from the checkout, which all nodes see; the declaration names shared storage (storage:).
#SBATCH --job-name=clip-study
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

study=${1:?usage: sbatch examples/slurm.sh STUDY.yaml}
source .venv/bin/activate

# A token for this job's Ray; srun hands it to all nodes.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

# Each node keeps copies and decoded images on a disk of its own; srun hands this to all nodes, too.
export STUDY_CACHE="${STUDY_CACHE:-${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/clip-scaling-study-$UID}"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))

# Ray on every node. Nodes join while the driver starts: trials that need more nodes wait for them (resources: wait).
srun --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port="$port" --block &
until python -c "import socket; socket.create_connection(('$head', $port), 1)" 2>/dev/null; do sleep 1; done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    others=$((SLURM_JOB_NUM_NODES - 1))
    srun --nodes="$others" --ntasks="$others" --exclude="$head" ray start --address="$head:$port" --block &
fi

python -m study run "$study" --address "$head:$port" --quiet &
driver=$!
# Near the time limit: ask the run to stop, and leave time for the requeue. A run that has not begun takes the signal.
trap 'python -m study stop "$study" --within 480s || kill -USR1 $driver' USR1
while kill -0 $driver 2>/dev/null; do wait $driver || true; done # the signal ends a wait, not the run
code=0
wait $driver || code=$?

case $code in
    0) python -m study report "$study" ;;
    4 | 138) scontrol requeue "$SLURM_JOB_ID" ;; # stopped, or ended by the signal before it had begun
esac
exit $code
