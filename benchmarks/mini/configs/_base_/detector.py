# What all trainings of detectors share: the small Mask R-CNN of configs/finetune, its crops of
# 192x192 pixels, eight at a time, and a log of every iteration.
_base_ = ['../../../../configs/finetune/mask_rcnn_fishnet77_fpn.py', './networks.py']
custom_imports = dict(imports=['benchmarks.mini.components'])

custom_hooks = [dict(type='LevelScaleHook')]
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=160, save_best=None, max_keep_ckpts=1)
)
log_processor = dict(window_size=1)
