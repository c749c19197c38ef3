"""Rows, and what is made of them: configurations, baselines, intervals, costs."""
