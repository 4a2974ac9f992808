_base_ = './_base_/fashion_mnist.py'
model = dict(
    backbone=dict(**_base_.fishnet150, out_indices=(3,)),
    head=dict(type='mmfish.FishNetClsHead', num_classes=10, in_channels=_base_.fish_levels[-1]),
)
