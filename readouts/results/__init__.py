"""Files of a run, rows of the table, and what follows from them: configurations, intervals, costs."""
