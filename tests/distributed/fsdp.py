# FSDP through MMEngine's FlexibleRunner; docs/distributed.md has the results.
_base_ = './witnessed.py'

runner_type = 'FlexibleRunner'
# The default of device_id is the GPU with the rank's number.
wrapper = dict(use_orig_params=True, device_id='cpu')
strategy = dict(type='FSDPStrategy', model_wrapper=wrapper)
