"""Figures of the report: pure functions of arrays, each answering with a `data:` address.

A page made of them needs no other file. Lines are SVG, maps and frames JPEG, tokens PNG.
"""

from readouts.report.figures.base import BASELINE_COLOUR, COLOURS, PageFigure, colours_of, jpeg, png
from readouts.report.figures.classification import precision_recall
from readouts.report.figures.costs import CostPoint, scores_by_cost
from readouts.report.figures.depth import by_depth
from readouts.report.figures.fields import forecast_maps
from readouts.report.figures.series import pressure_panels, rmse_by_lead
from readouts.report.figures.sweeps import SweepCurve, SweepPoint, sweep_curves
from readouts.report.figures.tokens import PCA_TOKENS, Spectrum, principal_components, spectrum, token_strips
from readouts.report.figures.tracking import end_points, error_histogram
from readouts.report.figures.training import curves

__all__ = [
    "BASELINE_COLOUR",
    "COLOURS",
    "PCA_TOKENS",
    "CostPoint",
    "PageFigure",
    "Spectrum",
    "SweepCurve",
    "SweepPoint",
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
