# What all trainings of detectors share: the small Mask R-CNN of configs/finetune, its crops of
# 192x192 pixels, eight at a time, and a log of every iteration.
_base_ = ['../../../../configs/finetune/mask_rcnn_fishnet77_fpn.py', './networks.py']

custom_hooks = [dict(type='LevelScaleHook'), dict(type='mmfish.CPUTimeHook')]
# None at the end: what is killed in its last evaluation goes on before that.
checkpoint = dict(interval=150, save_last=False, save_best=None, max_keep_ckpts=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=checkpoint)
log_processor = dict(window_size=1)
