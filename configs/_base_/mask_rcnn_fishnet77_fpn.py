# A Mask R-CNN with FishNet-77, small enough to train from scratch on a CPU within minutes.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

channels = 64
model = dict(
    backbone=dict(_delete_=True, type='mmfish.FishNet', arch='fishnet77', zero_init_residual=True),
    neck=dict(
        in_channels=[80, 208, 400, 528], out_channels=channels, num_outs=4, norm_cfg=dict(type='BN')
    ),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        # Boxes from 16 to 128 pixels, those of images of a few hundred pixels.
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=channels, finest_scale=28, roi_layer=dict(sampling_ratio=1)
        ),
        bbox_head=dict(in_channels=channels, fc_out_channels=256, reg_class_agnostic=True),
        mask_roi_extractor=dict(out_channels=channels, roi_layer=dict(sampling_ratio=1)),
        mask_head=dict(
            in_channels=channels,
            conv_out_channels=32,
            num_convs=2,
            upsample_cfg=dict(type='bilinear', scale_factor=2),
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=300)),
)
