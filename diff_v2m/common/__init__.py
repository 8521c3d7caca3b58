"""Shared by all packages: errors, files, cache, command lines, seeds, versions. Imports no torch."""
