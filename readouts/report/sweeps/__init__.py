"""Sweeps on the page: a section each, a panel a task; and the study of robustness."""
