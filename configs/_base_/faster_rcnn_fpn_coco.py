# Faster R-CNN + FPN on COCO with the paper's recipe; experiments set backbone and neck channels.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
    './schedule_32e.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        frozen_stages=0,  # the stem
        norm_cfg=dict(type='mmfish.FrozenBN'),  # every BatchNorm, its weights and its statistics
    ),
    # Detectron's numbers of proposals: 2000 in training, 1000 in testing.
    train_cfg=dict(rpn_proposal=dict(max_per_img=2000)),
)

train_dataloader = dict(batch_size=1)
