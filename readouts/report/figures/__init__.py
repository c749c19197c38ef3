"""Figures of the report: pure functions of arrays, each answering with a `data:` address.

A page made of them needs no other file. Lines are SVG, maps and frames JPEG, tokens PNG.
"""

from readouts.report.figures.base import PageFigure as PageFigure
from readouts.report.figures.base import Spot as Spot
from readouts.report.figures.base import colours_of as colours_of
from readouts.report.figures.base import jpeg as jpeg
from readouts.report.figures.classification import precision_recall as precision_recall
from readouts.report.figures.confusion import confusion_matrix as confusion_matrix
from readouts.report.figures.costs import CostPoint as CostPoint
from readouts.report.figures.costs import scores_by_cost as scores_by_cost
from readouts.report.figures.depth import by_depth as by_depth
from readouts.report.figures.fields import forecast_maps as forecast_maps
from readouts.report.figures.series import predicted_against_true as predicted_against_true
from readouts.report.figures.series import pressure_panels as pressure_panels
from readouts.report.figures.series import rmse_by_lead as rmse_by_lead
from readouts.report.figures.sweeps import SweepCurve as SweepCurve
from readouts.report.figures.sweeps import SweepPoint as SweepPoint
from readouts.report.figures.sweeps import sweep_curves as sweep_curves
from readouts.report.figures.tokens import principal_components as principal_components
from readouts.report.figures.tokens import spectrum as spectrum
from readouts.report.figures.tokens import token_strips as token_strips
from readouts.report.figures.tracking import end_points as end_points
from readouts.report.figures.tracking import error_histogram as error_histogram
from readouts.report.figures.training import curves as curves
