"""A training run on disk: its folder, its logs, and the page and picture that sum it up."""
