"""What a training has come to, in pictures."""

from mmfish.results.pictures import prediction_grid, training_curves

__all__ = ['prediction_grid', 'training_curves']
