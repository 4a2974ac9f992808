_base_ = './_base_/scratch.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.fishnet150), neck=dict(in_channels=_base_.fish_levels)
)
