# Table 3, the authors' ResNet-50 with Faster R-CNN: 38.0 box AP on val2017.
_base_ = './_base_/faster_rcnn_fpn_coco.py'

model = dict(
    backbone=dict(
        type='ResNet',
        depth=50,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50.imagenet1k_v2'),
    ),
)

# The paper's, +-0.3 points.
expected_metrics = {'coco/bbox_mAP': [0.377, 0.383]}
