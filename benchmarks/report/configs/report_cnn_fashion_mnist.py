_base_ = ['./_base_/cnn.py', './_base_/fashion_mnist.py']
