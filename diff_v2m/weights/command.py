"""`python -m diff_v2m weights list | get NAME | verify [NAME] | licenses`."""

import argparse
import logging
import sys
from pathlib import Path

from diff_v2m.common.errors import InputError
from diff_v2m.weights.known import KNOWN
from diff_v2m.weights.names import FORM, Name, parse_name

log = logging.getLogger("diff_v2m.weights")

SUMMARY = "weights by name: what there is, download, check, licences"
DESCRIPTION = (
    f"Weights by name: {', '.join(KNOWN)}, {FORM}. infer.py --ckpt_path, train.py's weights flags and "
    "DiffV2M.from_pretrained take the same names. Downloads go to the Hugging Face cache (HF_HOME), from HF_ENDPOINT."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    commands.add_parser("list", help="the known names, their size, and where they are on this machine")
    commands.add_parser("licenses", help="the licence of each")
    get = commands.add_parser("get", help="download, or look for a newer version; prints the path")
    get.add_argument("names", nargs="+", metavar="NAME", help=f"{', '.join(KNOWN)}, {FORM}")
    verify = commands.add_parser(
        "verify", help="compare with the published SHA-256 and remove damaged downloads; status 1 if one differs"
    )
    verify.add_argument("names", nargs="*", metavar="NAME", help="names (default: all that are on this machine)")


def run(options: argparse.Namespace) -> int:
    if options.action == "list":
        _list()
    elif options.action == "licenses":
        for word, known in KNOWN.items():
            _write(f"{word}: {known.licence} (https://huggingface.co/{known.repo})")
        _write("saved_model/: MIT; see LICENSE, NOTICE and saved_model/instruments.LICENSE")
    elif options.action == "get":
        _get([_name(text) for text in options.names])
    else:
        return _verify(options.names)
    return 0


def _list() -> None:
    from diff_v2m.weights import hub

    for word, known in KNOWN.items():
        paths = hub.find(parse_name(word))
        sizes = [file.size for file in known.files]
        size = hub.size_text(sum(sizes)) if None not in sizes else "size as the hub says"
        place = f"in {paths[0].parent}" if paths else f"not here (weights get {word})"
        _write(f"{word}: {known.what}; {size}; {place}")
    _write(f"Other models of the hub: {FORM}")


def _get(names: list[Name]) -> None:
    from diff_v2m.weights import hub

    for name in names:
        _write(str(hub.fetch(name, update=True)[0]))


def _verify(texts: list[str]) -> int:
    from diff_v2m.weights import hub

    status = 0
    for name in [_name(text) for text in texts or KNOWN]:
        paths = hub.find(name)
        if paths is None:
            if texts:
                status = 1
            _write(f"{name.text}: not on this machine")
        for path in paths or []:
            try:
                hub.check(name, path)
                known = hub.expected_sha256(name, path) is not None
                _write(f"{name.text}: {path}: {'ok' if known else 'no SHA-256 is known for it'}")
            except InputError as error:
                _write(str(error))
                status = 1
    return status


def _name(text: str) -> Name:
    if (name := parse_name(text)) is not None:
        return name
    hint = "; a file or folder needs no name" if Path(text).exists() else ""
    raise InputError(f"{text}: expected a name: {', '.join(KNOWN)}, {FORM}{hint}")


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
