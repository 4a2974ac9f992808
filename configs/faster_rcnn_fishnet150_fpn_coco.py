# Table 3, FishNet-150 with Faster R-CNN: 40.6 box AP on val2017.
_base_ = './_base_/faster_rcnn_fpn_coco.py'

model = dict(
    backbone=dict(
        type='mmfish.FishNet',
        arch='fishnet150',
        init_cfg=dict(type='Pretrained', checkpoint='pytorchcv://fishnet150'),
    ),
    neck=dict(in_channels=[320, 832, 1600, 2112]),
)

# The paper's, +-0.3 points.
expected_metrics = {'coco/bbox_mAP': [0.403, 0.409]}
