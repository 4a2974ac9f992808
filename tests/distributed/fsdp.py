# FSDP through MMEngine's FlexibleRunner; docs/distributed.md says what came of it.
_base_ = './witnessed.py'

runner_type = 'FlexibleRunner'
strategy = dict(type='FSDPStrategy', model_wrapper=dict(use_orig_params=True))
