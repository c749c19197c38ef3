"""Pictures for the report: pure functions of arrays, each answering with a `data:` address.

A page made of them needs no other file. Lines are SVG, maps and frames JPEG, tokens PNG.
"""

from readouts.pictures.base import COLOURS, CONTROL_COLOUR, colours_of, jpeg, png
from readouts.pictures.classification import precision_recall
from readouts.pictures.costs import Point, scores_by_cost
from readouts.pictures.depth import by_depth
from readouts.pictures.fields import forecast_maps
from readouts.pictures.series import pressure_panels, rmse_by_lead
from readouts.pictures.sweeps import Curve, Place, sweep_curves
from readouts.pictures.tokens import PCA_TOKENS, Spectrum, principal_components, spectrum, token_strips
from readouts.pictures.tracking import end_points, error_histogram
from readouts.pictures.training import curves

__all__ = [
    "COLOURS",
    "CONTROL_COLOUR",
    "PCA_TOKENS",
    "Curve",
    "Place",
    "Point",
    "Spectrum",
    "by_depth",
    "colours_of",
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
    "scores_by_cost",
    "spectrum",
    "sweep_curves",
    "token_strips",
]
