# The report has 88.6 % test accuracy. The images keep their 28x28 pixels, of which an epoch takes a
# quarter of the time, and a fraction of the 200 epochs that CIFAR is given is enough.
_base_ = './fishnet55_mnist.py'

model = dict(head=dict(feat_size=7))
# Mean and deviation of the pixels of the training images.
data_preprocessor = dict(mean=[72.94], std=[90.02])

shift = dict(type='RandomCrop', crop_size=28, padding=2)
train_pipeline = [shift, _base_.flip, _base_.pack]
test_pipeline = [_base_.pack]
dataset = dict(type='mmfish.FashionMNIST', data_root='data/fashion_mnist')
train_dataloader = dict(batch_size=64, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader

max_epochs = 20
optim_wrapper = dict(optimizer=dict(lr=0.05))
auto_scale_lr = dict(base_batch_size=64)
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, end=max_epochs, convert_to_iter_based=True),
]
