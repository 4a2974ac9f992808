# Mask R-CNN + FPN on COCO with the paper's recipe; experiments set backbone and neck channels.
# The detector is that of MMDetection 1.x, which the authors used; docs/reproduce.md says how it
# differs from today's. (MMEngine refuses the dot in mmdet::legacy_1.x/, hence the way round it.)
_base_ = 'mmdet::_base_/../legacy_1.x/mask-rcnn_r50_fpn_1x_coco_v1.py'

model = dict(
    backbone=dict(
        _delete_=True,
        frozen_stages=0,  # the stem
        norm_cfg=dict(type='mmfish.FrozenBN'),  # every BatchNorm, its weights and its statistics
    ),
    train_cfg=dict(
        rpn=dict(allowed_border=0),  # no anchors across the border of the image
        # As in Detectron: none in crowds, and each goes to the object that it overlaps most.
        rcnn=dict(assigner=dict(ignore_iof_thr=0.7, match_low_quality=False)),
    ),
)

# Section 4.4: 16 GPUs with one image each, for 32 epochs.
max_epochs = 32
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_epochs=max_epochs)
# Clipping is for the huge gradients at the beginning, and ends after two epochs.
optim_wrapper = dict(clip_grad=dict(max_norm=5.0, norm_type=2))
custom_hooks = [dict(type='mmfish.StopGradClipHook', epoch=2)]
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', end=max_epochs, milestones=[20, 28], gamma=0.1),
]
# Beside today's AP of small, medium and large masks the paper's, which told sizes by boxes.
val_evaluator = dict(type='mmfish.BoxAreaCocoMetric')
test_evaluator = val_evaluator
