"""What the documentation says: its links, its quotations, its figures."""

import ast
import json
import re
from pathlib import Path

import pytest
import torch
from mmcv.ops import nms
from mmengine.dataset import BaseDataset
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import get_torchvision_models
from torch import nn
from torch.distributed import TCPStore
from torch.nn.parallel import DistributedDataParallel

from mmfish.checkpoints.loading import RELEASED_FILES
from mmfish.models import ARCHS, FishNet, FishNetClsHead

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')])
QUESTIONS = ROOT / 'docs' / 'faq.md'
ZOO = ROOT / 'docs' / 'model-zoo.md'
PUBLISHED = json.loads((ROOT / 'benchmarks' / 'published.json').read_text())['tables']
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')
CODE_BLOCK = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = CODE_BLOCK.sub('', page.read_text())
    headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def rows(page: Path, mark: str) -> list[list[str]]:
    """The cells of a table behind a mark, without its heading."""
    table = page.read_text().partition(f'<!-- checked by tests/test_docs.py: {mark} -->')[2]
    lines = table.strip().partition('\n\n')[0].splitlines()
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for link in LINK.findall(CODE_BLOCK.sub('', page.read_text())):
        if re.match(r'\w+:', link):
            continue
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_first_page_leads_to_all_others():
    first = ROOT / 'docs' / 'README.md'
    linked = {(first.parent / link).resolve() for link in LINK.findall(first.read_text())}
    assert {page for page in ROOT.glob('docs/*.md') if page != first} - linked == set()


# What prints the headings of docs/faq.md, in so far as an error can be had in a second.


class NoTensor:
    pass


def weights_only() -> None:
    torch.save(NoTensor(), 'file.pth')
    torch.load('file.pth', weights_only=True)


def size_mismatch() -> None:
    nn.Linear(3, 2).load_state_dict(nn.Linear(3, 5).state_dict())


def no_image() -> None:
    class Empty(BaseDataset):
        def load_data_list(self) -> list:
            return []

    Empty()


def unused_parameters() -> None:
    class HalfUsed(nn.ModuleList):
        def forward(self, x):
            return self[0](x)

    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{Path("store").absolute()}', rank=0, world_size=1
    )
    try:
        model = DistributedDataParallel(HalfUsed([nn.Linear(2, 2), nn.Linear(2, 2)]))
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()


def wrong_channels() -> None:
    nn.Conv2d(256, 1, 1)(torch.zeros(1, 320, 8, 8))


def port_in_use() -> None:
    first = TCPStore('127.0.0.1', 0, 1, is_master=True)
    TCPStore('127.0.0.1', first.port, 1, is_master=True)


def other_torchvision() -> None:
    torch.library.register_fake('trout::nms', lambda *args: None)


def no_op_for_the_device() -> None:
    nms(torch.empty(1, 4, device='meta'), torch.empty(1, device='meta'), 0.5)


@pytest.mark.parametrize(
    ('cause', 'printed', 'replaced'),
    [
        (weights_only, 'Weights only load failed', ()),
        (size_mismatch, 'size mismatch for', ()),
        (no_image, 'need at least one array to concatenate', ()),
        (
            unused_parameters,
            'Expected to have finished reduction in the prior iteration before starting a new one',
            (),
        ),
        (wrong_channels, 'to have 256 channels, but got 320 channels instead', ()),
        (port_in_use, 'EADDRINUSE, message: address already in use', ('message: ', '')),
        (other_torchvision, 'operator trout::nms does not exist', ('trout', 'torchvision')),
        (
            no_op_for_the_device,
            'nms_impl: implementation for device meta not found',
            ('meta', 'mps:0'),
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else '',
)
def test_headings_of_the_questions_are_what_is_printed(
    cause, printed, replaced, tmp_path, monkeypatch
):
    heading = printed.replace(*replaced) if replaced else printed
    assert f'### {heading}\n' in QUESTIONS.read_text()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=re.escape(printed)):
        cause()


@pytest.mark.parametrize(
    'quoted',
    [
        'has no compiled ops',
        'does not fit',
        'check the name and the network',
        'has no category',
        'there is nothing to train on',
        'expects in_channels=',
        'the config is for MMDetection 2.x',
    ],
)
def test_sentences_of_mmfish_in_the_questions_are_what_it_says(quoted):
    texts = [
        node.value
        for file in (ROOT / 'mmfish').rglob('*.py')
        if '.mim' not in file.parts
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert quoted in QUESTIONS.read_text()
    assert any(quoted in text for text in texts)


def test_the_question_about_the_registry_quotes_mmengine():
    with pytest.raises(KeyError) as error:
        MODELS.build(dict(type='Trout'))
    said = str(error.value).replace('Trout', 'FishNet').replace('mmengine::', 'mmdet::')
    quoted = 'FishNet is not in the mmdet::model registry. Please check whether'
    assert quoted in said
    assert quoted in QUESTIONS.read_text()


def test_the_weights_of_the_zoo_are_those_of_their_publishers():
    model_store = pytest.importorskip('pytorchcv.models.common.model_store')
    for _, accuracy, _, _, file, checksum, arch, _ in rows(ZOO, 'weights'):
        if 'pytorchcv://' in file:
            name = re.search(r'pytorchcv://(\w+)', file)[1]
            error, sha1, release = model_store.get_model_name_suffix_data(name)
            assert f'{name}-{error}-{sha1[:8]}.pth' in file
            assert sha1 in checksum
            assert accuracy.split(' / ')[1] == f'{100 - int(error) / 100:.2f}'
            assert f'/{release}/{name}-{error}-{sha1[:8]}.pth.zip' in ZOO.read_text()
        elif 'torchvision://' in file:
            name = re.search(r'torchvision://([\w.]+)', file)[1]
            assert get_torchvision_models()[name].endswith(f'/{checksum.strip("`")}')
        elif 'official://' in file:
            name, released = re.fullmatch(r'`official://(\w+)`: `(\S+)`', file).groups()
            assert RELEASED_FILES[name].endswith(f'/{released}')
            assert name.removesuffix('_200e') == arch.strip('`')
        assert arch.strip('`') in {'', *ARCHS}


def test_the_accuracies_of_the_zoo_are_those_of_the_paper_tables():
    accuracies = {row[0]: row[1] for row in rows(ZOO, 'weights')[1:]}  # first comes pytorchcv's
    for row in PUBLISHED['Figure 4']['rows']:
        name = row['name'].removesuffix(', released')
        if 'release' in row['source']:
            _, *errors = row['published']
            assert accuracies[name] == ' / '.join(f'{100 - error:.2f}' for error in errors)


def test_the_parameters_of_the_zoo_are_those_of_the_networks():
    for _, _, parameters, *_, arch, _ in rows(ZOO, 'weights'):
        if arch:
            with torch.device('meta'):
                parts = FishNet(arch.strip('`')), FishNetClsHead()
            counted = sum(p.numel() for part in parts for p in part.parameters())
            assert parameters == f'{counted:,}'


def test_every_coco_config_is_in_the_zoo_with_its_published_ap():
    expected = {path.name: ['', ''] for path in (ROOT / 'configs').glob('*.py')}
    for row in PUBLISHED['Table 3']['rows']:
        if row['runs']:
            mask_rcnn, faster_rcnn = row['runs']
            masks, boxes, fpn = row['published'][::4]
            expected[f'{mask_rcnn}.py'] = [str(boxes), str(masks)]
            expected[f'{faster_rcnn}.py'] = [str(fpn), '']
    found = {re.search(r'`(.*)`', row[0])[1]: row[1:3] for row in rows(ZOO, 'detectors')}
    expected['htc_fishnext229_fpn_coco.py'] = found['htc_fishnext229_fpn_coco.py']
    assert found == expected
