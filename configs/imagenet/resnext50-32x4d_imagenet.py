# The paper's table 1 has 22.2 top-1 error. That it was trained like FishNet is our reading.
_base_ = ['../_base_/imagenet.py', 'mmpretrain::_base_/models/resnext50_32x4d.py']
