"""An arch of three stages for tests that build many networks; levels of 40 to 264 channels."""

# The fish at an eighth of its channels, with one or two blocks in a row.
TINY = dict(
    stem=8,
    tail=dict(channels=(16, 32, 64), blocks=(1, 2, 1)),
    bridge=dict(blocks=1),
    body=dict(channels=(64, 48, 32), blocks=(1, 2, 1), transfers=(1, 1, 1)),
    head=dict(blocks=(1, 1, 2), transfers=(1, 1, 1)),
)
