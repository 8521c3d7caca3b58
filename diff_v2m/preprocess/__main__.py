"""`python -m diff_v2m.preprocess`: see the package for what it does."""

import logging
import sys
from collections.abc import Callable

from diff_v2m.common.errors import InputError

log = logging.getLogger("diff_v2m.preprocess")  # __name__ is "__main__" when this is run


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 1 when any source could not be used (the others are done nevertheless)."""
    parse, work = _command(sys.argv[1:] if argv is None else argv)
    options = parse(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diff_v2m").setLevel(logging.INFO)
    try:
        failures = work(options)
    except InputError as error:
        log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        log.error("stopped; what is done stays, the same command goes on from there")
        return 130
    for name, reason in failures:
        log.error("not done: %s", reason if name in reason else f"{name}: {reason}")
    return 1 if failures else 0


def _command(argv: list[str]) -> tuple[Callable, Callable]:
    """(arguments → options, options → failures): --latents and --shards are commands of their own."""
    if "--latents" in argv:
        from diff_v2m.preprocess import latents

        return latents.parse_arguments, latents.encode_sets
    if any(argument.partition("=")[0] == "--shards" for argument in argv):
        from diff_v2m.preprocess import shards

        return shards.parse_arguments, shards.write_shards
    from diff_v2m.preprocess import clips

    return clips.parse_arguments, clips.preprocess


if __name__ == "__main__":
    sys.exit(main())
