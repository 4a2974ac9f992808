# Our reconstruction of FishNeXt-229 (see mmfish/models/archs.py), for the detector that starts from
# it: configs/htc_fishnext229_fpn_coco.py. The paper publishes no number for it.
_base_ = '../_base_/fishnet_imagenet.py'

model = dict(backbone=dict(arch='fishnext229', stem='residual'))
