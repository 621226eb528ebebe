"""Align one language model to thousands of preferences (Lee et al. 2024, arXiv 2405.17977)."""
