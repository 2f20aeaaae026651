"""The pictures that TensorBoard must get."""

from relu_probe.report.life_image import draw_life
from relu_probe.tensorboard.life_picture import framed_life


def life_picture(name, reports):
    """Returns the picture of a layer's history in all of these reports."""
    layers = [report[name] for report in reports]
    return framed_life(draw_life(layers), name, layers[-1].neurons, [report.epoch for report in reports])
