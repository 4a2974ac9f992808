# Figure 4 of the paper shows DenseNet-169 without numbers; torchvision's has 23.92 top-1 error.
_base_ = ['../_base_/imagenet.py', 'mmpretrain::_base_/models/densenet/densenet169.py']

model = dict(head=dict(topk=(1, 5)))
