# ResNet's stem; the paper's ablation of the stem starts from it.
_base_ = '../_base_/fishnet_imagenet.py'

model = dict(backbone=dict(stem='conv7x7'))
