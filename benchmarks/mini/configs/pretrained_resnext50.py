_base_ = './_base_/pretrained.py'
weights = 'work_dirs/mini/fashion-mnist_resnext50/epoch_3.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        **_base_.resnext50,
        **_base_.fixed,
        frozen_stages=0,  # the stem
        init_cfg=dict(type='Pretrained', checkpoint=weights, prefix='backbone.'),
    ),
    neck=dict(in_channels=_base_.res_levels),
)
