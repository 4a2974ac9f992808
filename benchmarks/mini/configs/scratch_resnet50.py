_base_ = './_base_/scratch.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.resnet50), neck=dict(in_channels=_base_.res_levels)
)
