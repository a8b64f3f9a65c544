"""Experiments: ablations, and checks of what a result does to anatomy."""
