# The three networks of table 3 with all channels divided by four. In each of them the residual
# branches begin at zero when nothing is loaded, which is MMDetection's default for ResNet; its
# ResNeXt needs `zero_residual` for that.
custom_imports = dict(imports=['benchmarks.mini.components', 'benchmarks.report.timing'])
fishnet150 = dict(
    type='mmfish.FishNet',
    arch=dict(
        stem=16,
        tail=dict(channels=(32, 64, 128), blocks=(2, 4, 8)),
        bridge=dict(blocks=4),
        body=dict(channels=(128, 96, 64), blocks=(2, 2, 2), transfers=(2, 2, 2)),
        head=dict(blocks=(2, 2, 4), transfers=(2, 2, 4)),
    ),
    zero_init_residual=True,
)
resnet50 = dict(type='mmdet.ResNet', depth=50, base_channels=16, norm_eval=False)
# A quarter of 32x4d: as many channels in a group, a quarter of the groups.
resnext50 = dict(
    type='mmdet.ResNeXt', depth=50, groups=8, base_width=4, base_channels=16, norm_eval=False
)
zero_residual = dict(type='ZeroResidualInit')
# Channels of the levels.
fish_levels = [80, 208, 400, 528]
res_levels = [64, 128, 256, 512]
