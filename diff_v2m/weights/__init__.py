"""Weights by name: names → files in saved_model/, in the Hugging Face cache, or on the hub.

known.py     the files that have a name of their own, with size, SHA-256 and licence
names.py     `released`, `hf:owner/repo/file@revision` → repository, file, revision
hub.py       downloads them, announced and checked
finding.py   a path or a name → a weights file
command.py   `python -m diff_v2m weights`
"""
