# The paper's FishNeXt-150 (4d) has 78.5 top-1. That it was trained like FishNet is our reading.
_base_ = '../_base_/fishnet_imagenet.py'

model = dict(backbone=dict(arch='fishnext150'))
