# ImageNet with the recipe of FishNet's released code: 256 images a step (8 GPUs with 32 each), 100
# epochs; --auto-scale-lr adapts the rate to other numbers. The release's README and the paper say
# 256, its yaml 32. The released weights are those of the best epoch; here the last epoch counts.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32.py',
    'mmpretrain::_base_/schedules/imagenet_bs256.py',
    'mmpretrain::_base_/default_runtime.py',
]

# PIL smooths before it makes an image smaller; MMPretrain's default, OpenCV, does not.
resizing = dict(backend='pillow', interpolation='bilinear')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        **resizing,
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    # Lighting may brighten a pixel beyond 255, where integers would wrap around.
    dict(type='ToNumpy', dtype='float32'),
    # AlexNet's PCA of ImageNet's colours, in the order of the channels of a loaded image: BGR. The
    # release multiplies its largest eigenvalue into another axis.
    dict(
        type='Lighting',
        eigval=[0.2175, 0.0188, 0.0045],
        eigvec=[
            [-0.5836, -0.6948, 0.4203],
            [-0.5808, -0.0045, -0.8140],
            [-0.5675, 0.7192, 0.4009],
        ],
        alphastd=0.1 * 255,
        to_rgb=False,
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', **resizing),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
# How MMPretrain's own tools set its data loaders.
loader = dict(pin_memory=True, persistent_workers=True, collate_fn=dict(type='default_collate'))
train_dataloader = dict(**loader, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(**loader, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
