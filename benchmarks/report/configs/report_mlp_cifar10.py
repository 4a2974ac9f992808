_base_ = ['./_base_/mlp.py', './_base_/cifar10.py']
