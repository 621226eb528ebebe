"""Evaluation: tasks, statistics, and the run that joins them."""
