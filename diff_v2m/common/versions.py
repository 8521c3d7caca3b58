"""Which versions of this code, of Python and of packages made a result: for the JSON beside it."""

import platform
from collections.abc import Sequence
from importlib import metadata

FEATURE_VERSION = 1  # raised whenever the same video would give other numbers; feature folders of another are refused


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """{"python": …, package: …} of those that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
