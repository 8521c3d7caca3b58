"""A process that reads frames with decord, started by sampling.py.

Requests are pickled on standard input: (path, frame numbers, frames that the container shows). Answers are pickled on
standard output: (frames, "") or (None, why decord cannot read them). It ends when its input ends. It imports nothing
of the package, so it starts fast.
"""

import os
import pickle
import resource
import sys

MEMORY_BYTES = 4 << 30  # decord decodes ahead of what is asked, without a bound of its own


def main() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what decord prints must not end up between the answers
    while True:
        try:
            path, numbers, count = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(answer(path, numbers, count), answers)
        answers.flush()


def answer(path: str, numbers: list[int], count: int) -> tuple:
    """The frames (n, H, W, 3) uint8 RGB with these numbers, of a video in which the container shows `count` frames."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(path)
        if len(reader) != count:  # an edit list, which decord ignores
            return None, f"finds {len(reader)} frames where the container shows {count}"
        return reader.get_batch(numbers).asnumpy(), ""
    except (decord.DECORDError, RuntimeError) as error:
        return None, "says: " + str(error).partition("\n")[0].rpartition("Check failed: ")[2]


if __name__ == "__main__":
    main()
