_base_ = ['./_base_/fishnet77.py', './_base_/cifar10.py']
