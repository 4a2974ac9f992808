_base_ = ['./_base_/fishnet55.py', './_base_/cifar10.py']
