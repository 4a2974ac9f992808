"""Images and videos in, pictures and ``predictions.json`` out, whatever predicts.

It imports nothing but NumPy, OpenCV and Pillow. (``import mmfish`` itself still asks for PyTorch.)
"""
