# The report has 75.5 % test accuracy.
_base_ = './fishnet55_cifar10.py'

model = dict(
    backbone=dict(arch='fishnet77', out_indices=(3,)),
    head=dict(in_channels=528, feat_size=7),
)
