_base_ = ['./_base_/cnn.py', './_base_/cifar10.py']
