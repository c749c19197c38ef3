"""The benchmark's scores, each as two pure functions.

`per_clip(outputs, targets)` reduces a batch to statistics, a row a clip; `scores(statistics, weights)` makes
named scores of those of a split. The same statistics, with each clip counted as often as a resample drew it,
give the bootstrap its numbers. Names of scores are the reference's result keys, so that its logs and ours
can be laid side by side.
"""
