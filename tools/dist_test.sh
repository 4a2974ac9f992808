#!/usr/bin/env bash
# Evaluate on several GPUs, or without any GPU in several processes on the CPU.
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# Several machines, the same call on each: NNODES, NODE_RANK, MASTER_ADDR, PORT.
set -euo pipefail

CONFIG=${1:?usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]}
CHECKPOINT=${2:?usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]}
GPUS=${3:?usage: $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]}

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
