# FishNet-55 on scikit-learn's handwritten digits of 8x8 pixels: no download, minutes on a CPU.
_base_ = '../../configs/small/fishnet55_mnist.py'
custom_imports = dict(imports=['demo.digits'])

model = dict(head=dict(feat_size=4))
data_preprocessor = dict(mean=[127.5], std=[127.5])

resize = dict(type='Resize', scale=16)
shift = dict(type='RandomCrop', crop_size=16, padding=2)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        _delete_=True, type='mmfish.Digits', split='train', pipeline=[resize, shift, _base_.pack]
    ),
)
val_dataloader = dict(
    batch_size=360,
    num_workers=0,
    dataset=dict(_delete_=True, type='mmfish.Digits', split='test', pipeline=[resize, _base_.pack]),
)
test_dataloader = val_dataloader

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, end=max_epochs, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=5),
    visualization=dict(rescale_factor=16),
)
randomness = dict(seed=0)
