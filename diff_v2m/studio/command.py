"""`python -m diff_v2m studio`: the page, and the process that does the work."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from diff_v2m.common import cli
from diff_v2m.common.errors import InputError
from diff_v2m.common.files import BUNDLED, ROOT, user_cache
from diff_v2m.studio import LOOPBACK, UPLOADS

log = logging.getLogger("diff_v2m.studio")

SUMMARY = "a page on which music for videos is made, in the browser"
DESCRIPTION = (
    "Serve a page on which music for videos is made: cues on a timeline, takes side by side, spans composed again, the "
    "mix with the video's own sound. Jobs are folders, which survive page and server."
)
MEGABYTE = 1 << 20
LONGEST_PAUSE = 30.0  # seconds before a worker that ended is started again
HIGHEST_PORT = 65535
SHORTEST_PASSWORD = 8  # characters


def main(arguments: list[str] | None = None) -> int:
    return cli.main(parse, run, arguments)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.Parser(prog="diff-v2m-studio", description=DESCRIPTION)
    add_arguments(parser)
    return parser.parse_args(arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=Path, default=Path("output/studio"), help="job folders (default: %(default)s)")
    parser.add_argument("--ckpt-path", type=Path, metavar="PATH", help="weights, as for infer.py (default: bundled)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="precision, as for infer.py (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=cli.whole_number(0, HIGHEST_PORT),
        default=7860,
        help="0: any that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; any other than this machine's own needs a password (default: %(default)s)",
    )
    parser.add_argument(
        "--password-file",
        type=Path,
        metavar="PATH",
        help="file with the password of the user `studio`; or set DIFF_V2M_STUDIO_PASSWORD",
    )
    parser.add_argument(
        "--max-upload", type=cli.whole_number(1), default=500, metavar="MB", help="of a video (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """Serve until interrupted. Raises InputError."""
    password = _password(options.password_file)
    if options.host not in LOOPBACK and password is None:
        raise InputError(
            f"--host {options.host}: others could reach the studio; give a password too, with --password-file or "
            "DIFF_V2M_STUDIO_PASSWORD"
        )
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise InputError(
            "the studio needs packages of its own: bash studio.sh installs them, or: "
            "pip install -c constraints.txt -r requirements-studio.txt"
        ) from None
    from diff_v2m.weights.finding import find_weights

    weights = find_weights(options.ckpt_path or BUNDLED)
    jobs = options.jobs.absolute()
    try:
        jobs.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(jobs / UPLOADS, ignore_errors=True)
    except OSError as error:
        raise InputError(f"--jobs {options.jobs}: cannot be written ({error.strerror})") from None
    worker = WorkerProcess(
        [jobs, "--weights", weights.absolute(), "--device", options.device, "--dtype", options.dtype]
    )
    try:
        _serve(options, jobs, password, worker)
    finally:
        worker.stop()


class WorkerProcess:
    """Keeps a worker running. It ends with this process, whose end closes its standard input."""

    def __init__(self, arguments: list[str | Path]):
        cache = user_cache("features")
        further = ["--feature-cache", cache] if cache else []
        self._command = [sys.executable, "-m", "diff_v2m.studio.worker", *map(str, [*arguments, *further])]
        self._process: subprocess.Popen | None = None
        self._stopped = threading.Event()
        threading.Thread(target=self._keep, daemon=True).start()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End it now; an unfinished task is done by the next worker."""
        self._stopped.set()
        if self.is_running:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)

    def _keep(self) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        pause = 1.0
        while not self._stopped.is_set():
            begun = time.monotonic()
            # A session of its own: Ctrl-C reaches the server alone, which then ends the worker.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, start_new_session=True
            )
            status = self._process.wait()
            pause = 1.0 if time.monotonic() - begun > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            if not self._stopped.wait(pause):
                log.error("the worker ended with status %d; it is started again", status)


def _serve(options: argparse.Namespace, jobs: Path, password: str | None, worker: WorkerProcess) -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(jobs / UPLOADS)  # beside the jobs: an upload is moved, not copied
    import socket

    import uvicorn

    from diff_v2m.studio.actions import Actions
    from diff_v2m.studio.folders import Jobs
    from diff_v2m.studio.page import mount
    from diff_v2m.studio.server import USER, build_app

    most_bytes = options.max_upload * MEGABYTE
    folders = Jobs(jobs)
    app = build_app(folders, host=options.host, password=password, most_bytes=most_bytes)
    app = mount(app, Actions(folders, lambda: worker.is_running), most_bytes)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((options.host, options.port))
    except OSError as error:
        raise InputError(
            f"--host {options.host} --port {options.port}: {error.strerror}; choose another --port, or 0 for a free one"
        ) from None
    host = f"[{options.host}]" if ":" in options.host else options.host
    login = f" (user {USER}, with the password)" if password else ""
    log.info(
        "studio: http://%s:%d%s, jobs in %s; Ctrl-C ends it", host, listening.getsockname()[1], login, options.jobs
    )
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, server_header=False)
    uvicorn.Server(config).run(sockets=[listening])


def _password(file: Path | None) -> str | None:
    """From the file, else from the environment. Raises InputError."""
    if file is None:
        password = os.environ.get("DIFF_V2M_STUDIO_PASSWORD")
        if not password:
            return None
    else:
        try:
            password = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--password-file {file}: cannot be read ({error})") from None
    if len(password) < SHORTEST_PASSWORD:
        raise InputError(f"the password of the studio has {len(password)} characters; at least {SHORTEST_PASSWORD}")
    return password
