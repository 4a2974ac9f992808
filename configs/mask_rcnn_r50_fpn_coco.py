# Table 3, the authors' ResNet-50 with Mask R-CNN: 34.7 mask AP and 38.7 box AP on val2017.
_base_ = './_base_/mask_rcnn_fpn_coco.py'

model = dict(
    backbone=dict(
        type='ResNet',
        depth=50,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50.imagenet1k_v2'),
    ),
)

# The paper's, +-0.3 points.
expected_metrics = {
    'coco/bbox_mAP': [0.384, 0.390],
    'coco/segm_mAP': [0.344, 0.350],
}
