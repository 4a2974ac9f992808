# Two residual blocks for a stem: 0.18 less top-1 error in the paper than the 7x7 convolution. Which
# blocks they are is our reading (mmfish/models/fishnet.py).
_base_ = '../_base_/fishnet_imagenet.py'

model = dict(backbone=dict(stem='residual'))
