# The released weights have 78.76 top-1, 94.39 top-5.
_base_ = '../_base_/fishnet_imagenet.py'

model = dict(backbone=dict(arch='fishnet201'))
