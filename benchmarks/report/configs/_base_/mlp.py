# Values from 0 to 1: with the report's raw ones, up to 255, it stays at chance.
_base_ = './recipe.py'

data_preprocessor = dict(mean=[0.0], std=[255.0])
model = dict(
    backbone=dict(type='mmfish.ReportBaseline', kind='mlp', init_cfg=_base_.glorot),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=256),
)
