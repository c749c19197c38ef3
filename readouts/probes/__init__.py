"""Readouts that need no training: neighbours, logistic and ridge regression."""
