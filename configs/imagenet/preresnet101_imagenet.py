# The paper's own ResNet-101 has blocks of pre-activation, 22.30 top-1 error and 44.5M parameters.
# This network is timm's (`pip install timm`).
_base_ = './preresnet50_imagenet.py'

model = dict(backbone=dict(model_name='resnetv2_101'))
