# The released weights have 77.41 top-1, 93.59 top-5.
_base_ = '../_base_/fishnet_imagenet.py'

model = dict(backbone=dict(arch='fishnet99'))
