"""Table 3 of the paper in miniature: a quarter of the channels, on two CPU cores.

`plan` has what is run as data, `configs/` the networks and the two conditions, `runs` carries it
out and keeps a record of each run in `records/`, and `page` makes docs/claim.md of these.
"""
