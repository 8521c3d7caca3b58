"""How fast, against what, and how exact: `python -m benchmarks`, `.sampler_error`, `.loader`."""
