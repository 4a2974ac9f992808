"""Train RetinaNet with each neck of mmfish on two ranks: `python tests/models/two_ranks.py`.

RetinaNet's FPN does not read the first level. DistributedDataParallel stops in the second iteration
if a parameter got no gradient in the first.
"""

import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.structures import InstanceData
from torch.nn.parallel import DistributedDataParallel

from mmfish import plug_in

RANKS = 2
SIZE = 64
ADAPTER = dict(type='mmfish.FishHeadAdapter', start_level=1)


def retinanet(adapted):
    """The model with the adapter in front of its FPN, or with FishFPN in place of both."""
    cfg = plug_in('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'fishnet77').model
    channels = cfg.neck.in_channels
    if adapted:
        cfg.neck = [{**ADAPTER, 'in_channels': channels}, cfg.neck]
    else:
        cfg.neck.type = 'mmfish.FishFPN'
    return MODELS.build(cfg)


def batch(rank):
    box = InstanceData(bboxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([rank]))
    shape = dict(img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))
    sample = DetDataSample(metainfo=shape, gt_instances=box)
    return torch.randn(1, 3, SIZE, SIZE), [sample]


def train(rank, store):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=RANKS)
    register_all_modules()
    torch.manual_seed(rank)
    for adapted in (True, False):
        model = DistributedDataParallel(retinanet(adapted), find_unused_parameters=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        for _ in range(3):
            losses = model(*batch(rank), mode='loss')
            loss = sum(sum(part) for part in losses.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        total = torch.stack([p.sum() for p in model.parameters()]).sum().detach()
        totals = [torch.zeros_like(total) for _ in range(RANKS)]
        dist.all_gather(totals, total)
        assert loss.isfinite()
        assert totals[0] == totals[1]
        if rank == 0:
            print('trained', type(model.module.neck).__name__)
    dist.destroy_process_group()


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        # Forked, so that everything is imported once.
        torch.multiprocessing.start_processes(
            train, (Path(folder, 'store'),), RANKS, start_method='fork'
        )
