# The released weights have 78.14 top-1, 93.95 top-5; the paper says 78.07 top-1.
_base_ = '../_base_/fishnet_imagenet.py'
