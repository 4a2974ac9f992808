# The classification that comes before condition B: Fashion-MNIST at 64x64 for three epochs.
_base_ = ['../../../../configs/small/fishnet55_fashion_mnist.py', './networks.py']

model = dict(_delete_=True, type='ImageClassifier')
# Those of the detectors, of three channels: what has one is broadcast to three.
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])

resize = dict(type='Resize', scale=64)
shift = dict(type='RandomCrop', crop_size=64, padding=8)
train_dataloader = dict(dataset=dict(pipeline=[resize, shift, _base_.flip, _base_.pack]))
val_dataloader = dict(dataset=dict(pipeline=[resize, _base_.pack]))
test_dataloader = val_dataloader

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, end=max_epochs, convert_to_iter_based=True),
]
custom_hooks = [dict(type='mmfish.CPUTimeHook')]
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
