"""Experiments behind the published results: procedural worlds for training data, and the ablations."""
