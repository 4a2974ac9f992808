# FishNet-99 with Mask R-CNN, under the conditions of table 3, from the authors' weights (77.41
# top-1).
_base_ = './mask_rcnn_fishnet150_fpn_coco.py'

model = dict(backbone=dict(arch='fishnet99', init_cfg=dict(checkpoint='official://fishnet99')))
expected_metrics = None  # not published
