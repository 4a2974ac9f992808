# Max-pooling and the ReLUs are our reading. Values from 0 to 1: with the report's raw ones, up to
# 255, the loss becomes NaN.
_base_ = './recipe.py'

data_preprocessor = dict(mean=[0.0], std=[255.0])
model = dict(
    backbone=dict(type='mmfish.ReportBaseline', kind='cnn', init_cfg=_base_.glorot),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=520),
)
