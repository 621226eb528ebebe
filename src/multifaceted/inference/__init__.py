"""Inference: the one place that asks a model for text."""
