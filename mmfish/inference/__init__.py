"""Images and videos in, pictures and ``predictions.json`` out, whatever predicts.

Needs NumPy, OpenCV and Pillow only, so that a machine without PyTorch can use it.
"""
