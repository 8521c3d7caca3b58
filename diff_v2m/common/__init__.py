"""What every other room may import: errors, files, cache, command lines, seeds, versions. Imports no torch."""
