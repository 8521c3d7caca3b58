"""Twins of a model: trained alike but for one thing each, and compared.

    twins.py      configs/ablations.json: twins as changes to a base → whole model and dataset JSON
    scores.py     how a finished twin does on held-out procedural clips
    table.py      all twins, all seeds → one table

`scripts/ablations.sh` trains them; `python -m experiments.ablations` does the rest.
"""
