_base_ = ['./_base_/fishnet55.py', './_base_/fashion_mnist.py']
