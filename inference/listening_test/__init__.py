"""A blind listening test: its page and the analysis of the answers."""
