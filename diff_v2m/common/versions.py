"""Versions of this code, of Python and of packages, for the JSON beside a result."""

from collections.abc import Sequence

VERSION = "0.1.0"  # also `diff_v2m.__version__`
FEATURE_VERSION = 2  # raise it when the same video gives different features; folders of another version are refused
# Version 1 read HDR, wide gamuts, mirrored pictures and pixels that are not square differently, other videos equally.
READABLE_FEATURES = (1, FEATURE_VERSION)


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """{"python": …, package: …} of those packages that are installed."""
    import platform  # imported here: every start of a program imports VERSION
    from importlib import metadata

    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
