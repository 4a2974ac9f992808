_base_ = './imagenet.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmfish.FishNet', arch='fishnet150', out_indices=(3,)),
    head=dict(type='mmfish.FishNetClsHead', topk=(1, 5)),
)
