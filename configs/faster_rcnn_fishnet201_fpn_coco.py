# FishNet-201 with Faster R-CNN, under the conditions of table 3. There are no public weights: it
# starts from the classifier of configs/imagenet/fishnet201_imagenet.py, which you train first.
_base_ = './faster_rcnn_fishnet150_fpn_coco.py'

model = dict(
    backbone=dict(
        arch='fishnet201', init_cfg=dict(checkpoint='work_dirs/fishnet201_imagenet/epoch_100.pth')
    ),
)
expected_metrics = None  # not published
