#!/usr/bin/env bash
# Train on several GPUs, or without any GPU in several processes on the CPU.
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# Several machines, the same call on each: NNODES, NODE_RANK, MASTER_ADDR, PORT.
# MAX_RESTARTS (0): how often all ranks are started again, from the newest checkpoint, after one has
# died.
set -euo pipefail

CONFIG=${1:?usage: $0 CONFIG GPUS [arguments of tools/train.py]}
GPUS=${2:?usage: $0 CONFIG GPUS [arguments of tools/train.py]}
NODE_RANK=${NODE_RANK:-0}
MASTER_ADDR=${MASTER_ADDR:-127.0.0.1}
PORT=${PORT:-29500}

if [ "${MAX_RESTARTS:-0}" = 0 ]; then
    rendezvous=(--node_rank="$NODE_RANK" --master_addr="$MASTER_ADDR" --master_port="$PORT")
else
    # After a restart the static rendezvous above would still give out the addresses of dead ranks.
    # So would a store that all starts share.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    rendezvous=(--rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:$PORT" --rdzv_id="$PORT")
    if [ "$NODE_RANK" = 0 ]; then
        rendezvous+=(--rdzv_conf=is_host=true --local_addr="$MASTER_ADDR")
    else
        rendezvous+=(--rdzv_conf=is_host=false)
    fi
    rendezvous+=(--max_restarts="$MAX_RESTARTS")
fi

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" "${rendezvous[@]}" --nproc_per_node="$GPUS" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
