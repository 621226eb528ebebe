"""Synthesis: data that other stages train and test on."""
