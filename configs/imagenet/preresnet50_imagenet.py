# The paper's own ResNet-50 has blocks of pre-activation, 23.78 top-1 error and 25.5M parameters.
# This network is timm's (`pip install timm`).
_base_ = '../_base_/imagenet.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(type='TIMMBackbone', model_name='resnetv2_50'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=2048, topk=(1, 5)),
)
