_base_ = './recipe.py'

model = dict(
    backbone=dict(type='mmfish.ReportFishNet', arch='fishnet77', init_cfg=_base_.glorot),
    head=dict(type='mmfish.ReportHead', num_classes=10, in_channels=528, feat_size=7),
)
