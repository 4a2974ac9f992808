# Table 3, FishNet-150 with Mask R-CNN: 37.0 mask AP and 41.5 box AP on val2017.
_base_ = './_base_/mask_rcnn_fpn_coco.py'

model = dict(
    backbone=dict(
        type='mmfish.FishNet',
        arch='fishnet150',
        init_cfg=dict(type='Pretrained', checkpoint='pytorchcv://fishnet150'),
    ),
    neck=dict(in_channels=[320, 832, 1600, 2112]),
)

# The paper's, +-0.3 points.
expected_metrics = {
    'coco/bbox_mAP': [0.412, 0.418],
    'coco/segm_mAP': [0.367, 0.373],
}
