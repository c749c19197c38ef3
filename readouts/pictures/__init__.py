"""Pictures for the report: pure functions of arrays, each answering with a `data:` address.

A page made of them needs no other file. Lines are SVG, maps and frames JPEG, tokens PNG.
"""

from readouts.pictures.base import COLOURS, CONTROL_COLOUR, jpeg, png
from readouts.pictures.classification import precision_recall
from readouts.pictures.fields import forecast_maps
from readouts.pictures.series import pressure_panels, rmse_by_lead
from readouts.pictures.tokens import PCA_TOKENS, principal_components, token_strips
from readouts.pictures.tracking import end_points, error_histogram
from readouts.pictures.training import curves

__all__ = [
    "COLOURS",
    "CONTROL_COLOUR",
    "PCA_TOKENS",
    "curves",
    "end_points",
    "error_histogram",
    "forecast_maps",
    "jpeg",
    "png",
    "precision_recall",
    "pressure_panels",
    "principal_components",
    "rmse_by_lead",
    "token_strips",
]
