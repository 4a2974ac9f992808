# The report has about 30 % test accuracy, more than with FishNet-55.
_base_ = './fishnet55_cifar100.py'

model = dict(
    backbone=dict(arch='fishnet77', out_indices=(3,)),
    head=dict(in_channels=528, feat_size=7),
)
