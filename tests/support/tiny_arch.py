"""Small archs for tests that build many networks."""

# Three stages, one or two blocks in a row; levels of 40 to 264 channels.
TINY = dict(
    stem=8,
    tail=dict(channels=(16, 32, 64), blocks=(1, 2, 1)),
    bridge=dict(blocks=1),
    body=dict(channels=(64, 48, 32), blocks=(1, 2, 1), transfers=(1, 1, 1)),
    head=dict(blocks=(1, 1, 2), transfers=(1, 1, 1)),
)
# The smallest network that has a layer of every kind.
LITTLE = dict(
    stem=4,
    tail=dict(channels=(8, 16), blocks=(1, 1)),
    bridge=dict(blocks=1),
    body=dict(channels=(16, 12), blocks=(1, 1), transfers=(1, 1)),
    head=dict(blocks=(1, 1), transfers=(1, 1)),
)
