# What stays as it was pretrained while a detector learns (section 4.4 of the paper).
fixed = dict(
    frozen_stages=0,  # the stem
    norm_cfg=dict(type='mmfish.FrozenBN'),  # every BatchNorm, its weights and its statistics
)
