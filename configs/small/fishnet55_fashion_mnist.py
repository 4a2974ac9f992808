# The report has 88.6 % test accuracy.
_base_ = './fishnet55_mnist.py'

# Mean and deviation of the pixels of the training images.
data_preprocessor = dict(mean=[72.94], std=[90.02])

train_pipeline = [_base_.resize, _base_.shift, _base_.flip, _base_.pack]
dataset = dict(type='FashionMNIST', data_root='data/fashion_mnist')
train_dataloader = dict(dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader
