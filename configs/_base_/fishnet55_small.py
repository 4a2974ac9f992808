# FishNet-55 on small images after a reproduction (see mmfish/models/archs.py): 56x56 inputs and a
# dense layer at the end. The rest is what we would recommend: schedule, shifts and flips are what
# MMPretrain has for CIFAR-10. The reproduction's own are in benchmarks/report/configs.
_base_ = [
    'mmpretrain::_base_/schedules/cifar10_bs128.py',
    'mmpretrain::_base_/default_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfish.FishNet', arch='fishnet55', stem='small', out_indices=(2,)),
    head=dict(type='mmfish.FishNetClsHead', num_classes=10, in_channels=112, feat_size=14),
)

# Transforms for the configs of the data sets. The padding is an eighth of the width, as are the 4
# pixels that are usual for CIFAR's 32.
resize = dict(type='Resize', scale=56)
shift = dict(type='RandomCrop', crop_size=56, padding=7)
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
pack = dict(type='PackInputs')
