# A training from scratch on a CPU, in iterations: it does not depend on how many images there are.
_base_ = 'mmdet::_base_/default_runtime.py'

max_iters = 900
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=450)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    # The thinner a convolution, the larger its initial weights, and Adam's steps do not grow with
    # them.
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=5))),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=max_iters, eta_min=0),
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=450, max_keep_ckpts=1, save_best='auto'),
)
log_processor = dict(by_epoch=False)
