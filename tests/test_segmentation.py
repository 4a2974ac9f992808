"""FishNet in MMSegmentation. Skipped where it is not installed, which mmfish does not need."""

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData

from mmfish import plug_in

pytest.importorskip('mmseg', reason='MMSegmentation is not installed')
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

SIZE, CLASSES = 64, 150


def batch(images):
    """Images whose left and right halves are of two classes."""
    inputs, samples = [], []
    for seed in range(images):
        generator = torch.Generator().manual_seed(seed)
        image = torch.randint(0, 128, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        classes = torch.zeros(1, SIZE, SIZE, dtype=torch.long)
        image[..., SIZE // 2 :] += 100
        classes[..., SIZE // 2 :] = 1
        sample = SegDataSample(metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE)))
        sample.gt_sem_seg = PixelData(data=classes)
        inputs.append(image)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.filterwarnings('ignore:FishNet starts from nothing')
@pytest.mark.parametrize(
    'config',
    [
        'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py',
        'upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
    ],
)
def test_segmentors_train_and_predict(config):
    register_all_modules()
    cfg = plug_in(f'mmseg::{config}', 'fishnet77')
    assert cfg.model.backbone.type == 'mmfish.FishNet'
    cfg.model.data_preprocessor.size = (SIZE, SIZE)
    cfg.model.decode_head.channels = 32
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.train()
    optimiser = build_optim_wrapper(model, cfg.optim_wrapper)
    first = model.train_step(batch(2), optimiser)['loss'].item()
    for _ in range(4):
        loss = model.train_step(batch(2), optimiser)['loss'].item()
    assert loss < 0.9 * first

    model.eval()
    with torch.no_grad():
        (prediction,) = model.test_step(batch(1))
    assert prediction.pred_sem_seg.data.shape == (1, SIZE, SIZE)
    assert prediction.seg_logits.data.shape == (CLASSES, SIZE, SIZE)
