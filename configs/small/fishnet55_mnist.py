# The report says that MNIST was among its data sets, but not with which accuracy.
_base_ = '../_base_/fishnet55_small.py'

model = dict(backbone=dict(in_channels=1))
data_preprocessor = dict(num_classes=10, mean=[33.46], std=[78.87])

# No flips: a mirrored digit is not a digit. MMPretrain goes by test_mode, not by split.
train_pipeline = [_base_.resize, _base_.shift, _base_.pack]
test_pipeline = [_base_.resize, _base_.pack]
data_root = 'data/mnist'
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    dataset=dict(type='MNIST', data_root=data_root, split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    dataset=dict(
        type='MNIST', data_root=data_root, split='test', test_mode=True, pipeline=test_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
