# The published number of parameters is that with Keras' 1000 classes, of which the data has ten.
_base_ = './recipe.py'

model = dict(
    backbone=dict(type='mmfish.ReportBaseline', kind='mobilenet', init_cfg=_base_.glorot),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=1024),
)
