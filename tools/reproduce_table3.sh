#!/usr/bin/env bash
# Train and evaluate the six cells of table 3, one after the other or through Slurm all at once.
#   tools/reproduce_table3.sh local [arguments of tools/train.py]
#   tools/reproduce_table3.sh slurm PARTITION [arguments of tools/train.py]
# DATA_ROOT is COCO's folder (data/coco). GPUS is the number of GPUs for each cell, over all machines
# (16 as in the paper; with another number the learning rate is scaled). The other variables are
# those of dist_*.sh and slurm_*.sh, without REQUEUE; with NNODES call the script on each machine.
# WEIGHTS says what the backbones start from: 'matched' (the configs' own, all three near 81 %
# top-1), or 'paper' (the authors' FishNet-150 of 78.14 % and its contemporaries). FISHNET150 is the
# authors' file, if it is not where official://fishnet150 looks for it.
# Each cell has its folder in work_dirs/, or in work_dirs/paper_weights/. Another call skips what is
# finished and resumes the rest.
set -euo pipefail

USAGE="usage: $0 {local | slurm PARTITION} [arguments of tools/train.py]"
TOOLS=$(dirname "$0")
PARTITION=
at_once=1
case ${1:?$USAGE} in
local) shift ;;
slurm)
    PARTITION=${2:?$USAGE}
    at_once=6
    shift 2
    ;;
*)
    echo "$USAGE" >&2
    exit 2
    ;;
esac
if [ -n "$PARTITION" ] && [ -n "${REQUEUE:-}" ]; then
    echo "$0: REQUEUE does not go with this script, which waits for each training to evaluate it:" \
        "call it without, and again after a preemption." >&2
    exit 2
fi
GPUS=${GPUS:-16}
# dist_*.sh take the number of GPUs of each machine.
NODES=${NNODES:-1}
GPUS_HERE=$((GPUS / NODES))
if [ -z "$PARTITION" ] && [ $((GPUS_HERE * NODES)) != "$GPUS" ]; then
    echo "$0: GPUS=$GPUS cannot be shared equally by NNODES=$NODES machines:" \
        "set GPUS, the number over all machines, to a multiple of $NODES." >&2
    exit 2
fi
DATA_ROOT=${DATA_ROOT:-data/coco}
FISHNET150=${FISHNET150:-official://fishnet150}
case ${WEIGHTS:-matched} in
matched) WORK_DIRS=work_dirs ;;
paper)
    WORK_DIRS=work_dirs/paper_weights
    # Not only after days of the other cells.
    read_it='import sys, mmfish.notices; from mmfish import checkpoints as c, cli; '
    read_it+='cli.run_tool(lambda: c.load_backbone_state(sys.argv[1]), "FISHNET150")'
    "${PYTHON:-python}" -c "$read_it" "$FISHNET150"
    ;;
*)
    echo "$0: WEIGHTS=$WEIGHTS is neither 'matched' nor 'paper'." >&2
    exit 2
    ;;
esac
export TOOLS PARTITION GPUS GPUS_HERE DATA_ROOT FISHNET150 WORK_DIRS

# has_result WORK_DIR: whether the last epoch was evaluated, at the end of training or by test.py.
has_result() {
    # A number: the record of a test without a result says that the metric was not measured.
    grep -qs '"coco/bbox_mAP":.*"step": 32\b' "$1"/*/vis_data/scalars.json ||
        grep -qs '"coco/bbox_mAP": *[0-9]' "$1"/test/*/*.json
}

# cell NAME [arguments of tools/train.py]
cell() {
    local config=$TOOLS/../configs/$1.py work_dir=$WORK_DIRS/$1
    local last=$work_dir/epoch_32.pth start= options train test
    if [ "$WORK_DIRS" != work_dirs ]; then
        case $1 in
        *_r50_*) start=torchvision://resnet50 ;;
        *_x50_*) start=open-mmlab://resnext50_32x4d ;;
        *) start=$FISHNET150 ;;
        esac
    fi
    options=(--data-root "$DATA_ROOT")
    options+=(${start:+--cfg-options "model.backbone.init_cfg.checkpoint=$start"})
    if [ -n "$PARTITION" ]; then
        train=("$TOOLS/slurm_train.sh" "$PARTITION" "$1" "$config" "$work_dir")
        test=("$TOOLS/slurm_test.sh" "$PARTITION" "$1" "$config" "$last")
    else
        train=("$TOOLS/dist_train.sh" "$config" "$GPUS_HERE" --work-dir "$work_dir")
        test=("$TOOLS/dist_test.sh" "$config" "$last" "$GPUS_HERE")
    fi
    if [ ! -f "$last" ]; then
        "${train[@]}" "${options[@]}" --resume --auto-scale-lr "${@:2}" || return 1
    fi
    # Training evaluates each epoch after saving it: a run may have been stopped in between.
    if ! has_result "$work_dir"; then
        "${test[@]}" "${options[@]}" --work-dir "$work_dir/test" || return 1
    fi
    echo "$1: finished, in $work_dir"
}

export -f has_result cell
printf '%s\n' {faster,mask}_rcnn_{r50,x50_32x4d,fishnet150}_fpn_coco |
    xargs -P "$at_once" -I '{}' bash -c 'cell "$@"' cell '{}' "$@" || {
    echo "$0: not all cells finished; another call resumes them." >&2
    exit 1
}
