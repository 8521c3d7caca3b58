"""Several systems on the same clips."""
