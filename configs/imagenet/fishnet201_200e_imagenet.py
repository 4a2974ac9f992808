# The released weights have 79.71 top-1, 94.79 top-5.
_base_ = './fishnet150_200e_imagenet.py'

model = dict(backbone=dict(arch='fishnet201'))
