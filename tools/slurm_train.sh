#!/usr/bin/env bash
# Train through Slurm.
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS size the job. The paper's runs have 16
# GPUs.
# SIGNAL (USR1@120): the signal that Slurm sends, and how many seconds before the job's time is up. The
# run then saves its state after the current iteration and stops, as it does on preemption (SIGTERM).
# REQUEUE=1 submits the job with sbatch instead of waiting for it. After such a stop Slurm starts it
# again, and it resumes. Its output goes to WORK_DIR/slurm.log.
set -euo pipefail

USAGE="usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]"
PARTITION=${1:?$USAGE}
JOB_NAME=${2:?$USAGE}
CONFIG=${3:?$USAGE}
WORK_DIR=${4:?$USAGE}
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
# sbatch runs a copy of this script in another folder.
TOOLS=${MMFISH_TOOLS:-$(dirname "$0")}

# SRUN_ARGS is a list of words.
# shellcheck disable=SC2206
job=(
    --partition="$PARTITION"
    --job-name="$JOB_NAME"
    --gres=gpu:"$GPUS_PER_NODE"
    --ntasks="$GPUS"
    --ntasks-per-node="$GPUS_PER_NODE"
    --cpus-per-task="${CPUS_PER_TASK:-5}"
    --signal="${SIGNAL:-USR1@120}"
    ${SRUN_ARGS:-}
)
train=(
    srun "${job[@]}" --kill-on-bad-exit=1
    "${PYTHON:-python}" -u "$TOOLS/train.py" "$CONFIG"
    --work-dir "$WORK_DIR" --launcher slurm "${@:5}"
)
if [ -z "${REQUEUE:-}" ]; then
    exec "${train[@]}"
elif [ -z "${MMFISH_TOOLS:-}" ]; then
    mkdir -p "$WORK_DIR"
    export MMFISH_TOOLS=$TOOLS
    exec sbatch "${job[@]}" --requeue --open-mode=append --output="$WORK_DIR/slurm.log" "$0" "$@"
fi

# From here on this script runs as the batch job. On preemption it may get SIGTERM, as the ranks do. It
# must outlive them.
trap : TERM
status=0
"${train[@]}" --resume || status=$?
if [ -e "$WORK_DIR/stopped_on_request" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
