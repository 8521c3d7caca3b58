"""The report of an evaluation: report.json, report.md and a page."""
