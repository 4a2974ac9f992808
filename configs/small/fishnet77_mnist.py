# The report says that MNIST was among its data sets, but not with which accuracy.
_base_ = './fishnet55_mnist.py'

model = dict(
    backbone=dict(arch='fishnet77', out_indices=(3,)),
    head=dict(in_channels=528, feat_size=7),
)
