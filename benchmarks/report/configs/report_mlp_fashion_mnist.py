_base_ = ['./_base_/mlp.py', './_base_/fashion_mnist.py']
