# The recipe of the reproduction report, as its code has it: a constant rate, no weight decay, raw
# values from 0 to 255 and Keras' initialisation. 20 epochs of 32 images a step are the defaults of
# its command; elsewhere it has 30 epochs and 64 images.
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(imports=['benchmarks.report'])

glorot = dict(type='Xavier', layer=['Conv2d', 'Linear'], distribution='uniform')
data_preprocessor = dict(type='mmfish.ReportPreprocessor', num_classes=10)
model = dict(type='ImageClassifier', head=dict(topk=(1,), cal_acc=True, init_cfg=glorot))

max_epochs = 20
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9))
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
custom_hooks = [dict(type='mmfish.CPUTimeHook')]
randomness = dict(seed=0)
