# The preprocessing is that of batches (ReportPreprocessor), so one process loads the images.
pipeline = [dict(type='PackInputs')]
dataset = dict(type='mmfish.FashionMNIST', data_root='data/fashion_mnist', pipeline=pipeline)
loader = dict(num_workers=0, collate_fn=dict(type='default_collate'))
train_dataloader = dict(
    batch_size=32,
    dataset=dict(split='train', **dataset),
    sampler=dict(type='DefaultSampler', shuffle=True),
    **loader,
)
val_dataloader = dict(
    batch_size=100,
    dataset=dict(split='test', test_mode=True, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=False),
    **loader,
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
