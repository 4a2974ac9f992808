# The released weights have 79.35 top-1, 94.75 top-5. The smoothing's 0.1 is the usual value, and
# that the rate falls to 0 from epoch to epoch, without warm-up, is our choice: neither is published.
_base_ = '../_base_/fishnet_imagenet.py'

model = dict(
    head=dict(
        loss=dict(
            type='LabelSmoothLoss', label_smooth_val=0.1, mode='original', loss_weight=1.0
        )
    )
)

max_epochs = 200
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = dict(
    _delete_=True, type='CosineAnnealingLR', T_max=max_epochs, by_epoch=True, end=max_epochs
)
