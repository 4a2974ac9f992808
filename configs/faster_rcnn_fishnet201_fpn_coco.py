# FishNet-201 with Faster R-CNN, under the conditions of table 3, from the authors' weights of 200
# epochs (79.71 top-1).
_base_ = './faster_rcnn_fishnet150_fpn_coco.py'

model = dict(backbone=dict(arch='fishnet201', init_cfg=dict(checkpoint='official://fishnet201')))
expected_metrics = None  # not published
