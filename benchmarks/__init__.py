"""How fast, against what, and how exact. Each command writes its section of docs/performance.md (see document.py)."""
