# FSDP through MMEngine's FlexibleRunner; docs/distributed.md says what came of it.
_base_ = './witnessed.py'

runner_type = 'FlexibleRunner'
# Its default is the GPU of the rank's number.
wrapper = dict(use_orig_params=True, device_id='cpu')
strategy = dict(type='FSDPStrategy', model_wrapper=wrapper)
