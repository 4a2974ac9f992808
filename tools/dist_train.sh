#!/usr/bin/env bash
# Train on several GPUs, or without any GPU in several processes on the CPU.
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines, the same call on each: NNODES, NODE_RANK, MASTER_ADDR, PORT.
# MAX_RESTARTS is how often all ranks start again, from the newest checkpoint, after one has died (0).
set -euo pipefail

CONFIG=${1:?usage: $0 CONFIG GPUS [arguments of tools/train.py]}
GPUS=${2:?usage: $0 CONFIG GPUS [arguments of tools/train.py]}

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    --max_restarts="${MAX_RESTARTS:-0}" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
