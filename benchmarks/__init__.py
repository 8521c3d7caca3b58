"""Commands that measure speed and exactness. Each writes its section of a document in results/ (see measuring.py)."""
