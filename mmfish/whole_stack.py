"""Importing this says in one sentence why torch and the OpenMMLab packages cannot carry mmfish.

The parts of mmfish that take them import it first. Those that run exported files do without.
"""

from mmfish.stack import check_stack, load_ops

check_stack()
load_ops()
