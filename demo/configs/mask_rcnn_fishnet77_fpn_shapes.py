# A Mask R-CNN small enough to learn to detect and segment shapes on a CPU within minutes.
_base_ = [
    '../../configs/_base_/mask_rcnn_fishnet77_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../../configs/_base_/schedule_cpu.py',
]

num_classes = 3
model = dict(
    backbone=dict(zero_init_residual=False),  # the figures in the docs were measured without it
    rpn_head=dict(anchor_generator=dict(scales=[6])),
    roi_head=dict(bbox_head=dict(num_classes=num_classes), mask_head=dict(num_classes=num_classes)),
    # An image has five shapes at most.
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=20)),
)

data_root = 'data/shapes/'
# Those of demo/shapes.py.
metainfo = dict(
    classes=('circle', 'square', 'triangle'),
    palette=[(230, 57, 70), (69, 123, 157), (42, 157, 80)],
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    batch_sampler=None,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=1,
    batch_size=4,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

# Two processes with four images each: one process keeps little more than one core busy.
max_iters = 700
train_cfg = dict(max_iters=max_iters, val_interval=350)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=max_iters, eta_min=0),
]
default_hooks = dict(
    checkpoint=dict(_delete_=True, type='CheckpointHook', by_epoch=False, interval=max_iters)
)
