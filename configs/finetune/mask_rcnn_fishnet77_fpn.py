# Objects with masks, learned from scratch on two CPU cores in about ten minutes:
# mmfish train configs/finetune/mask_rcnn_fishnet77_fpn.py --data-root FOLDER
_base_ = [
    '../_base_/mask_rcnn_fishnet77_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedule_cpu.py',
]

# The longer side of an image is brought to about 384 pixels, and a part of that is trained on.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(384, 384), ratio_range=(0.75, 1.33), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(192, 192)),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(384, 384), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=4, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
