# Mask R-CNN + FPN on COCO with the paper's recipe; experiments set backbone and neck channels.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py',
    './schedule_32e.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        frozen_stages=0,  # the stem
        norm_cfg=dict(type='mmfish.FrozenBN'),  # every BatchNorm, its weights and its statistics
    ),
    train_cfg=dict(
        # Detectron's numbers of proposals: 2000 in training, 1000 in testing.
        rpn_proposal=dict(max_per_img=2000),
        # As in Detectron and in MMDetection's Faster R-CNN, so that the two differ in masks only.
        rcnn=dict(assigner=dict(match_low_quality=False)),
    ),
)

train_dataloader = dict(batch_size=1)
# Beside today's AP of small, medium and large masks the paper's, which told sizes by boxes.
val_evaluator = dict(type='mmfish.BoxAreaCocoMetric')
test_evaluator = val_evaluator
