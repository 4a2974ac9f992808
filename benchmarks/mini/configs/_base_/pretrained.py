# Condition B: the backbone has learned Fashion-MNIST, its BatchNorm and its stem are fixed, and the
# rest is the schedule of table 3 (configs/_base_/mask_rcnn_fpn_coco.py) with half of its epochs, 40
# iterations each: warm-up in the first (from 0.001 of the rate, there from 1/3), clipping in the
# first (a sixteenth, as there), steps after 10 and 14.
_base_ = './detector.py'

fixed = dict(norm_cfg=dict(type='mmfish.FrozenBN'))

max_epochs = 16
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=2)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', end=max_epochs, milestones=[10, 14], gamma=0.1),
]
train_dataloader = dict(sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
custom_hooks = [dict(type='mmfish.StopGradClipHook', epoch=1), *_base_.custom_hooks]
default_hooks = dict(checkpoint=dict(by_epoch=True, interval=3))
log_processor = dict(by_epoch=True)
