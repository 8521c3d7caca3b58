"""Evaluation: reads finished files from disk and never imports the model."""
