"""Config files with mistakes are refused by the tools, and the mistake is named."""

import re

import pytest

OLD = """
model = dict(type='FasterRCNN', pretrained='torchvision://resnet50')
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
data = dict(samples_per_gpu=2, workers_per_gpu=2, train=dict(type='CocoDataset'))
optimizer = dict(type='SGD', lr=0.02)
optimizer_config = dict(grad_clip=None)
lr_config = dict(policy='step', step=[8, 11])
runner = dict(type='EpochBasedRunner', max_epochs=12)
total_epochs = 12
"""
FILES = {
    'MMDetection 2': (OLD, r'for MMDetection 2\.x: it has data, .*train_dataloader'),
    'no model': ("default_scope = 'mmdet'", 'has no model'),
    'a model that is a name': ("model = 'mask_rcnn'", 'has no model'),
    'not Python': ('model = dict(', 'cannot be read as a config'),
    'a base that is not there': ("_base_ = './none.py'", 'cannot be read as a config.*none.py'),
}


@pytest.mark.parametrize('name', ['train.py', 'test.py'])
@pytest.mark.parametrize('case', FILES)
def test_the_tools_refuse(case, name, tool, tmp_path):
    content, message = FILES[case]
    (tmp_path / 'config.py').write_text(content)
    (tmp_path / 'weights.pth').touch()
    checkpoint = [tmp_path / 'weights.pth'] if name == 'test.py' else []
    assert re.search(message, tool(name, tmp_path / 'config.py', *checkpoint))


@pytest.mark.parametrize('name', ['none.py', 'config.txt', '.'])
def test_a_file_that_is_no_config_is_named(name, tool, tmp_path):
    (tmp_path / 'config.txt').touch()
    message = tool('train.py', tmp_path / name)
    assert re.search(
        f'(there is no config {tmp_path / name}|{tmp_path / name} cannot be read).*expected',
        message,
    )


def test_train_names_the_arch(config, tool):
    assert 'fishnet9000' in tool(
        'train.py', config, '--cfg-options', 'model.backbone.arch=fishnet9000'
    )
