# The report has 90.1 % test accuracy.
_base_ = './fishnet55_fashion_mnist.py'

model = dict(
    backbone=dict(arch='fishnet77', out_indices=(3,)),
    head=dict(in_channels=528, feat_size=3),
)
