"""Measuring what a model paints: a judge, fixed prompts, intervals, and distances between sets of pictures."""
