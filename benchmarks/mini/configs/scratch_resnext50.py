_base_ = './_base_/scratch.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.resnext50, init_cfg=_base_.zero_residual),
    neck=dict(in_channels=_base_.res_levels),
)
