"""Times as people and programs write them ↔ seconds: 12.48, 0:12.48, 01:00:12:12 and 01:00:12;12."""

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction

from timecode import Timecode

from diff_v2m.common.errors import InputError

HOUR = "01:00:00:00"  # where a timeline starts in Resolve and in most deliveries
_TIMECODE = re.compile(r"(\d{1,2})[:;.]([0-5]\d)[:;.]([0-5]\d)([:;.])(\d{2,3})")
_CLOCK = re.compile(r"(?:(\d+):)?(?:(\d+):)?(\d+(?:[.,]\d+)?)")


@dataclass(frozen=True)
class Timebase:
    """Frame rate of timecodes and the timecode of the video's first frame.

    fps: None if unknown; a timecode is then an error. start: None if unknown; it is 00:00:00:00, or what
    `with_start_of` finds. drop_frame: whether 29.97 and 59.94 fps count with dropped frame numbers, which `;` before
    the frames also says.
    """

    fps: Fraction | None = None
    start: str | None = None
    drop_frame: bool = False

    @property
    def seconds_at_start(self) -> float:
        """Seconds of the timecode `start`."""
        return 0.0 if not int(re.sub(r"\D", "", self.start or "0")) else self._absolute(self.start)

    def seconds(self, text: str) -> float:
        """Seconds from the first frame of the video of a timecode, a clock time or a number. Raises ValueError."""
        text = text.strip()
        clock = _CLOCK.fullmatch(text)  # before timecodes: 00:01:12.12 is 72.12 s
        if clock is None:
            if _TIMECODE.fullmatch(text):
                return self.seconds_of_timecode(text)
            raise ValueError(f"{text!r} is no time; expected seconds (12.48), a clock time (0:12.48) or a timecode")
        parts = [part for part in clock.groups()[:2] if part is not None]
        seconds = float(clock.group(3).replace(",", "."))
        if parts and seconds >= 60 or len(parts) == 2 and int(parts[1]) >= 60:
            raise ValueError(f"{text!r} is no time; minutes and seconds go up to 59")
        for part, length in zip(reversed(parts), (60, 3600), strict=False):
            seconds += int(part) * length
        return seconds

    def seconds_of_timecode(self, text: str) -> float:
        """Seconds from the first frame of a timecode, 00:01:12.12 among them. Raises ValueError."""
        return self._absolute(text) - self.seconds_at_start

    def timecode(self, seconds: float) -> str:
        """The timecode of the frame nearest to `seconds` from the first frame. Raises ValueError without `fps`."""
        frames = self.frame(seconds) + self.frame(self.seconds_at_start)
        return str(Timecode(self._rate(), frames=frames + 1, force_non_drop_frame=not self.drop_frame))

    def frame(self, seconds: float) -> int:
        """Number of the frame nearest to `seconds`. Raises ValueError without `fps`."""
        return round(Fraction(seconds).limit_denominator(10**6) * self._known_fps())

    def frame_duration(self) -> Fraction:
        """Seconds of one frame. Raises ValueError without `fps`."""
        return 1 / self._known_fps()

    def with_start_of(self, timecodes: list[str]) -> "Timebase":
        """The same, but an unknown start becomes 01:00:00:00 if no timecode is earlier: most timelines start there."""
        late = timecodes and all(int(code[:2]) >= 1 for code in timecodes)
        return replace(self, start=HOUR) if late and self.start is None else self

    def with_fps(self, fps: Fraction) -> "Timebase":
        """The same at `fps` frames a second. Raises InputError if `start` is no timecode at that rate."""
        timebase = replace(self, fps=fps)
        try:
            timebase.seconds_at_start  # noqa: B018
        except ValueError as error:
            raise InputError(f"--timecode_start: {error}") from None
        return timebase

    def _absolute(self, text: str) -> float:
        match = _TIMECODE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no timecode; expected HH:MM:SS:FF")
        hours, minutes, seconds, separator, frames = match.groups()
        ntsc = self._known_fps() in (Fraction(30000, 1001), Fraction(60000, 1001))
        drop = ntsc and (separator in ";." or self.drop_frame)
        plain = f"{int(hours):02d}:{minutes}:{seconds}{';' if drop else ':'}{frames}"
        code = Timecode(self._rate(), plain, force_non_drop_frame=not drop)
        if [int(part) for part in re.split("[:;]", str(code))] != [int(part) for part in re.split("[:;]", plain)]:
            raise ValueError(f"{text!r} is no timecode at {rate_text(self.fps)} frames a second")
        return float(Fraction(code.frame_number) / self._known_fps())

    def _known_fps(self) -> Fraction:
        if self.fps is None:
            raise ValueError("the frame rate of its timecodes is unknown; give --fps")
        return self.fps

    def _rate(self) -> str:
        fps = self._known_fps()
        return str(fps.numerator) if fps.denominator == 1 else f"{fps.numerator}/{fps.denominator}"


def parse_rate(text: str) -> Fraction:
    """Frames a second: 25, 23.976, 29.97 or 30000/1001. Raises InputError."""
    try:
        rate = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 1 <= rate <= 1000:
        raise InputError(f"frame rate {text!r}: expected frames a second from 1 to 1000, such as 25 or 29.97")
    return nearest_rate(rate)


def nearest_rate(rate: Fraction) -> Fraction:
    """23.976, 29.97 and their like as the fractions over 1001 that they mean; other rates to a hundredth."""
    exact = Fraction(math.ceil(rate - Fraction(1, 100)) * 1000, 1001)
    return exact if abs(rate / exact - 1) < 3e-4 else rate.limit_denominator(100)


def rate_text(rate: Fraction) -> str:
    """25 or 29.97."""
    return f"{float(rate):.3f}".rstrip("0").rstrip(".")


def parse_start(text: str) -> Timebase:
    """A `--timecode_start`; `with_fps` checks its frames. Raises InputError."""
    start = text.strip()
    if _TIMECODE.fullmatch(start) is None:
        raise InputError(f"--timecode_start: {text!r} is no timecode; expected HH:MM:SS:FF")
    return Timebase(start=start, drop_frame=";" in start)
