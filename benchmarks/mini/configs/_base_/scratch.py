# Condition A: everything is learned from scratch, with the schedule of configs/finetune.
_base_ = './detector.py'

max_iters = 640
train_cfg = dict(max_iters=max_iters, val_interval=80)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=max_iters, eta_min=0),
]
