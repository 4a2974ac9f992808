_base_ = ['./_base_/fishnet77.py', './_base_/cifar100.py']

model = dict(head=dict(num_classes=100))
data_preprocessor = dict(num_classes=100)
