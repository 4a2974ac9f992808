_base_ = './tiny.py'
custom_imports = dict(imports=['witness'])
custom_hooks = [dict(type='Witness')]
