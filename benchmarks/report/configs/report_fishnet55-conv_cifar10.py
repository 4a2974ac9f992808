# The convolutional end, which averages the map, instead of the dense one: figures 3 and 4.
_base_ = './report_fishnet55_cifar10.py'

model = dict(head=dict(feat_size=None))
