# Figure 4 of the paper shows DenseNet-201 without numbers; torchvision's has 22.68 top-1 error.
_base_ = ['../_base_/imagenet.py', 'mmpretrain::_base_/models/densenet/densenet201.py']

model = dict(head=dict(topk=(1, 5)))
