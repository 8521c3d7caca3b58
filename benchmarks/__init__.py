"""How fast, against what, and how exact: `python -m benchmarks`, `python -m benchmarks.sampler_error`."""
