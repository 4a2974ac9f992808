import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

from mmfish.models import FishNetClsHead


@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmfish.FishNet', arch='fishnet77', out_indices=(3,)),
            head=dict(type='mmfish.FishNetClsHead', num_classes=10, in_channels=528, topk=(1, 5)),
            data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=10),
        )
    )
    model.init_weights()
    return model


def batch(n=2):
    images = torch.randint(0, 256, (n, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    return dict(
        inputs=list(images.to(torch.uint8)),
        data_samples=[DataSample().set_gt_label(i) for i in range(n)],
    )


def test_tensor_mode_gives_logits(classifier):
    classifier.eval()
    data = classifier.data_preprocessor(batch())
    with torch.no_grad():
        logits = classifier(data['inputs'], mode='tensor')
    assert logits.shape == (2, 10)


def test_loss_mode_gives_the_cross_entropy_and_a_gradient_for_every_parameter(classifier):
    classifier.train()
    data = classifier.data_preprocessor(batch(), training=True)
    classifier.zero_grad()
    loss = classifier(**data, mode='loss')['loss']
    loss.backward()
    assert all(p.grad is not None for p in classifier.parameters())

    classifier.eval()
    with torch.no_grad():
        loss = classifier(**data, mode='loss')['loss']
        logits = classifier(data['inputs'], mode='tensor')
    expected = -logits.log_softmax(1)[range(2), range(2)].mean()
    torch.testing.assert_close(loss, expected)


def test_predict_mode_gives_scores_and_labels(classifier):
    classifier.eval()
    data = classifier.data_preprocessor(batch(3))
    with torch.no_grad():
        predictions = classifier(**data, mode='predict')
        logits = classifier(data['inputs'], mode='tensor')
    assert len(predictions) == 3
    for prediction, row in zip(predictions, logits, strict=True):
        torch.testing.assert_close(prediction.pred_score, row.softmax(0))
        assert prediction.pred_label == row.argmax()


def test_a_few_steps_learn_two_images(classifier):
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.01, momentum=0.9)
    classifier.train()
    data = classifier.data_preprocessor(batch(), training=True)
    losses = []
    for _ in range(8):
        loss = classifier(**data, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_head_takes_the_last_level_and_averages_after_its_norm():
    head = FishNetClsHead(num_classes=5, in_channels=8).eval()
    levels = torch.randn(2, 6, 8, 8), torch.randn(2, 8, 3, 5)
    logits = head(levels)
    assert torch.equal(logits, head(levels[1:]))

    bn1, _, squeeze, bn2, _, _, score, _ = head.score
    x = squeeze(bn1(levels[1]).clamp(min=0))
    x = bn2(x).clamp(min=0).flatten(2).mean(2)
    expected = nn.functional.linear(x, score.weight[:, :, 0, 0], score.bias)
    torch.testing.assert_close(logits, expected)


def test_head_defaults_to_the_channels_and_classes_of_the_released_networks():
    with torch.device('meta'):
        head = FishNetClsHead()
    c, classes = 2112, 1000
    parameters = 2 * c + c * c // 2 + c + c // 2 * classes + classes
    assert sum(p.numel() for p in head.parameters()) == parameters


def test_with_a_feat_size_the_head_is_a_dense_layer_over_the_flattened_map():
    head = FishNetClsHead(num_classes=5, in_channels=8, feat_size=3).eval()
    level = torch.randn(2, 8, 3, 3)
    bn1, _, squeeze, bn2, _, _, score = head.score
    x = bn2(squeeze(bn1(level).clamp(min=0))).clamp(min=0)
    expected = torch.einsum('nchw,kchw->nk', x, score.weight.view(5, 4, 3, 3)) + score.bias
    torch.testing.assert_close(head((level,)), expected)


def test_a_level_of_another_size_than_feat_size_is_an_error():
    head = FishNetClsHead(num_classes=5, in_channels=8, feat_size=3)
    with pytest.raises(ValueError, match=r'last level of 3x3 .* got 3x4'):
        head((torch.randn(2, 8, 3, 4),))


def test_norm_cfg_reaches_the_head():
    head = FishNetClsHead(5, 8, norm_cfg=dict(type='GN', num_groups=2))
    assert sum(isinstance(m, nn.GroupNorm) for m in head.modules()) == 2
    assert not any(isinstance(m, nn.BatchNorm2d) for m in head.modules())
