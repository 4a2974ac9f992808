_base_ = './_base_/fashion_mnist.py'
model = dict(
    backbone=dict(**_base_.resnet50, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=_base_.res_levels[-1]),
)
