_base_ = ['./_base_/mobilenet.py', './_base_/cifar10.py']
