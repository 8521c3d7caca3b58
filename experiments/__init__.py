"""What made the evidence: the procedural world of the small model, and the ablations."""
