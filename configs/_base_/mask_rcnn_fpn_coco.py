# Mask R-CNN + FPN on COCO with the paper's recipe; experiments set backbone and neck channels.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/default_runtime.py',
    './schedule_32e.py',
]

# Detectron's numbers of proposals: 2000 in training, 1000 in testing.
model = dict(train_cfg=dict(rpn_proposal=dict(max_per_img=2000)))

train_dataloader = dict(batch_size=1)
