"""Variants of a model that differ in one setting each, trained equally and compared.

    variants.py   configs/ablations.json: changes to a base → complete model and dataset JSON
    scores.py     scores of a finished variant on held-out procedural clips
    results.py    values of all runs, read from their folders or from results/ablations.json
    table.py      results → one markdown table

`scripts/ablations.sh` trains them; `python -m experiments.ablations` does the rest.
"""
