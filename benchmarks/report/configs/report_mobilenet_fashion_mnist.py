_base_ = ['./_base_/mobilenet.py', './_base_/fashion_mnist.py']
