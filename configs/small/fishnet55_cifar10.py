# The report has 70.1 % test accuracy.
_base_ = ['../_base_/fishnet55_small.py', 'mmpretrain::_base_/datasets/cifar10_bs16.py']

train_pipeline = [_base_.resize, _base_.shift, _base_.flip, _base_.pack]
test_pipeline = [_base_.resize, _base_.pack]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=128, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
