# Figure 4 of the paper shows DenseNet-121 without numbers; torchvision's has 25.04 top-1 error.
_base_ = ['../_base_/imagenet.py', 'mmpretrain::_base_/models/densenet/densenet121.py']

model = dict(head=dict(topk=(1, 5)))
