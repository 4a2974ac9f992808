# Down-sampling by 3x3 max-pooling: 22.51 top-1 error in the paper, the default (2x2 max) 21.93.
_base_ = '../_base_/fishnet_imagenet.py'

model = dict(backbone=dict(down_sample='max3'))
