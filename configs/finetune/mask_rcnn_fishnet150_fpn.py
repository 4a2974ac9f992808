# Objects with masks, from public weights of FishNet-150 on one GPU:
# mmfish train configs/finetune/mask_rcnn_fishnet150_fpn.py --data-root FOLDER --amp
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedule_one_gpu.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmfish.FishNet',
        arch='fishnet150',
        frozen_stages=0,  # the stem
        norm_cfg=dict(type='mmfish.FrozenBN'),  # four images are too few for statistics
        init_cfg=dict(type='Pretrained', checkpoint='pytorchcv://fishnet150'),
    ),
    # The adapter normalises FishNet's levels, which otherwise give huge gradients at first.
    neck=[
        dict(type='mmfish.FishHeadAdapter', in_channels=[320, 832, 1600, 2112]),
        dict(type='FPN', in_channels=[320, 832, 1600, 2112], out_channels=256, num_outs=5),
    ],
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(1333, 800), ratio_range=(0.5, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(800, 1333)),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=4,
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(pipeline=train_pipeline),
)
