_base_ = './_base_/fashion_mnist.py'
model = dict(
    backbone=dict(**_base_.resnext50, out_indices=(3,), init_cfg=_base_.zero_residual),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=_base_.res_levels[-1]),
)
