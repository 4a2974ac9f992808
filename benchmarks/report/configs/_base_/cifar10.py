_base_ = './fashion_mnist.py'

dataset = dict(type='CIFAR10', data_root='data/cifar10', pipeline=_base_.pipeline)
train_dataloader = dict(dataset=dict(_delete_=True, split='train', **dataset))
val_dataloader = dict(dataset=dict(_delete_=True, split='test', test_mode=True, **dataset))
test_dataloader = val_dataloader
