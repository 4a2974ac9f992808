# The schedule of section 4.4 of the paper: 16 images a step, 32 epochs.
max_epochs = 32
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=5.0, norm_type=2),
)
# Clipping is for the huge gradients at the beginning, and ends after two epochs.
custom_hooks = [dict(type='mmfish.StopGradClipHook', epoch=2)]

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', end=max_epochs, milestones=[20, 28], gamma=0.1),
]

# 16 GPUs with one image each; --auto-scale-lr adapts the rate to other numbers.
auto_scale_lr = dict(enable=False, base_batch_size=16)
