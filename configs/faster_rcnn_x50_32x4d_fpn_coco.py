# Table 3, the authors' ResNeXt-50 32x4d with Faster R-CNN: 39.3 box AP on val2017.
_base_ = './_base_/faster_rcnn_fpn_coco.py'

model = dict(
    backbone=dict(
        type='ResNeXt',
        depth=50,
        groups=32,
        base_width=4,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnext50_32x4d.imagenet1k_v2'),
    ),
)

# The paper's, +-0.3 points.
expected_metrics = {'coco/bbox_mAP': [0.390, 0.396]}
