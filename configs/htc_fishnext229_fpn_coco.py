# Hybrid Task Cascade with FishNeXt-229. The paper names this backbone for its entry to the COCO
# challenge of 2018 and publishes neither block counts nor schedule: the arch is OUR RECONSTRUCTION
# (see mmfish/models/archs.py), the schedule that of MMDetection's HTC with ResNeXt-101.
# Beside COCO it needs the stuff segmentation maps, in stuffthingmaps/train2017/.
_base_ = 'mmdet::htc/htc_x101-32x4d_fpn_16xb1-20e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmfish.FishNet',
        arch='fishnext229',
        stem='residual',
        # As under the recipe of table 3: the stem and every BatchNorm.
        frozen_stages=0,
        norm_cfg=dict(type='mmfish.FrozenBN'),
        # No public weights: our own classifier, once trained, or another file in its place.
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/fishnext229_imagenet/epoch_100.pth'),
    ),
    neck=dict(in_channels=[320, 832, 1600, 2112]),
)

# FishNet's first gradients are huge, here as under the recipe of table 3.
optim_wrapper = dict(clip_grad=dict(max_norm=5.0, norm_type=2))
custom_hooks = [dict(type='mmfish.StopGradClipHook', epoch=2)]
