# FishNeXt-150 with Mask R-CNN, under the conditions of table 3. There are no public weights: it
# starts from the classifier of configs/imagenet/fishnext150_imagenet.py, which you train first.
_base_ = './mask_rcnn_fishnet150_fpn_coco.py'

model = dict(
    backbone=dict(
        arch='fishnext150', init_cfg=dict(checkpoint='work_dirs/fishnext150_imagenet/epoch_100.pth')
    ),
)
expected_metrics = None  # not published
