"""Cue sheets: as CSV, as spreadsheets write it, and every mistake in one line that names its row."""

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diff_v2m.common.errors import InputError
from diff_v2m.cues import Cue, CueSheet
from diff_v2m.cues.markers import read_cues, write_cues
from diff_v2m.cues.table import format_sheet
from diff_v2m.cues.timebase import Timebase

SHEET = """time,kind,value,name
0,rhythm,0.5,
0,cut,none,
1,rhythm,-0.25,
1.5,beat,0.75,
2.04,hit,,door
3.0-4.5,mood,navy #ff8800,"night, late"
5.0-6.0,silence,1 0.2,talk
30,end,sum e56d3f26,earth
"""


def read(folder: Path, text: str) -> CueSheet:
    path = folder / "film.cues.csv"
    path.write_text(text, encoding="utf-8")
    return read_cues(path, Timebase(Fraction(25)))


def test_a_sheet_reads_and_writes_the_same(tmp_path):
    sheet = read(tmp_path, SHEET)
    assert format_sheet(sheet) == SHEET
    assert sheet.hits.tolist() == [2.04]
    assert sheet["mood"][0].value == "navy #ff8800"
    assert sheet["silence"][0].fades == (1.0, 0.2)
    assert sheet.decides("cut") and not sheet["cut"]
    write_cues(tmp_path / "again.cues.csv", sheet, Timebase())
    assert read_cues(tmp_path / "again.cues.csv", Timebase()) == sheet


@pytest.mark.parametrize(
    "text",
    [
        "\ufefftime;kind;value;name\r\n2,04;hit;0,5;door\r\n3,0-4,5;mood;navy gold;\r\n;;;\r\n",
        "time\tkind\tvalue\tname\n0:02.04\thit\t.5\tdoor\n00:03-00:04.5\tmood\tnavy gold\n",
        "Kind,Time,Name,Value\nHit,00:00:02:01,door,0.5\nmood,3 to 4.5,,navy gold\n\n",
        "time,kind,value,name,,\n2.04,hit,0.5,door,,\n3–4.5,mood,navy gold,,,\n",
    ],
)
def test_what_spreadsheets_write(tmp_path, text):
    expected = CueSheet([Cue(2.04, "hit", 0.5, "door"), Cue(3, "mood", "navy gold", stop=4.5)])
    assert read(tmp_path, text) == expected


def test_images_lie_beside_the_sheet(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "still.png")
    sheet = read(tmp_path, "time,kind,value,name\n3-4,mood,still.png,\n")
    assert sheet.images() == [tmp_path / "still.png"]
    (tmp_path / "out").mkdir()
    write_cues(tmp_path / "out" / "x.cues.csv", sheet, Timebase())
    assert "../still.png" in (tmp_path / "out" / "x.cues.csv").read_text()
    assert [
        path.resolve() for path in read_cues(tmp_path / "out" / "x.cues.csv", Timebase()).images()
    ] == sheet.images()


BAD = {
    "2,hit,,\n1,hit,,": "line 3: hit 1: unsorted: after line 2: hit 2",
    "1-3,mood,navy,\n2-4,mood,gold,": "line 3: mood 2-4: overlaps line 2: mood 1-3",
    "1-3,silence,,\n2.5-4,silence,,": "line 3: silence 2.5-4: overlaps",
    "1-3,silence,,\n2,hit,,": "line 3: hit 2: lies in the line 2: silence 1-3",
    "2,hit,,\n2.1,hit,,": "line 3: hit 2.1: only 0.10 s after line 2: hit 2; hits need 0.25 s",
    "2,hit,,\n2,hit,,": "line 3: hit 2: the time of line 2: hit 2 again",
    "nan,hit,,": "line 2: 'nan' is no time",
    "1,rhythm,nan,": "line 2: value 'nan' is not a finite number",
    "1,rhythm,inf,": "line 2: value 'inf' is not a finite number",
    "1,rhythm,,": "line 2: rhythm 1: value None",
    "1.5,rhythm,1,": "line 2: rhythm 1.5: rhythm has a value for each whole second",
    "-1,hit,,": "line 2: '-1' is no time",
    "1,bang,,": "line 2: unknown kind 'bang'",
    "1,hit,2,": "line 2: hit 1: value 2.0; expected a number from 0 to 1",
    "1,hit,loud,": "line 2: value 'loud' is not a finite number",
    "1,mood,navy,": "line 2: mood '1'; expected start-end",
    "3-1,mood,navy,": "line 2: mood 3-1: the span ends before it begins",
    "1-3,mood,nawy,": "line 2: mood 1-3: 'nawy': expected names of colours",
    "1-3,mood,,": "line 2: mood 1-3: expected colours",
    "1-3,mood,gone.png,": "line 2: mood 1-3: no such image file",
    "1-3,hit,,": "line 2: hit 1-3: expected one time",
    "1-2-3,mood,navy,": "line 2: '1-2-3' is no time",
    "1-3,silence,-1,": "line 2: silence 1-3: value '-1'; expected the seconds",
    "1-3,silence,1e9,": "line 2: silence 1-3: value '1e9'; expected the seconds of the fades, from 0 to 60",
    "1-3,silence,1 nan,": "line 2: silence 1-3: value '1 nan'; expected the seconds",
    "1-3,silence,1 2 3,": "line 2: silence 1-3: value '1 2 3'",
    "0,cut,none,\n1,cut,,": 'line 3: cut 1: "none" stands beside other rows',
    "1,cut,0.5,": "line 2: cut 1: value 0.5; expected no value",
    "30,end,,\n31,end,,": "line 3: end 31: a second end",
    "1,hit,,a,b": "line 2: 5 cells for 4 columns",
    "00:00:12:25,hit,,": "line 2: '00:00:12:25' is no timecode at 25 frames",
}


@pytest.mark.parametrize("rows", BAD)
def test_a_mistake_is_one_line_with_its_number(tmp_path, rows):
    with pytest.raises(InputError) as error:
        read(tmp_path, f"time,kind,value,name\n{rows}\n")
    assert str(error.value).startswith(f"{tmp_path / 'film.cues.csv'}: {BAD[rows]}")
    assert "\n" not in str(error.value)


def test_columns_are_checked(tmp_path):
    with pytest.raises(InputError, match="line 1: columns time, kind, colour; expected time, kind, value, name"):
        read(tmp_path, "time,kind,colour\n1,hit,\n")
    with pytest.raises(InputError, match="empty; expected a first line"):
        read(tmp_path, "")


@pytest.mark.parametrize(
    "cue, message",
    [
        (Cue(31, "hit"), "hit 31: after the end of the video, which has 30.00 s"),
        (Cue(28, "mood", "navy", stop=31), "mood 28-31: after the end"),
        (Cue(30, "rhythm", 1.0), "rhythm 30: after the end"),
        (Cue(42, "end", None, "other"), r"end 42: the sheet is of a video of 42.00 s \(other\), this one has 30.00 s"),
    ],
)
def test_a_sheet_of_another_video(cue, message):
    with pytest.raises(InputError, match=message):
        CueSheet([cue]).check_video(30.0, 30)


def test_cues_from_python_are_checked_too():
    for cues, message in (
        ([Cue(math.nan, "hit")], "hit nan: a time is negative or not a finite number"),
        ([Cue(2, "hit"), Cue(1, "hit")], "hit 1: unsorted"),
        ([Cue(1, "rhythm", math.nan)], "rhythm 1: value nan"),
        ([Cue(1, "beat", True)], "beat 1: value True"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            CueSheet(cues)
    CueSheet([Cue(0, "hit"), Cue(0.25, "hit"), Cue(1, "silence", stop=2), Cue(2, "hit")]).check_video(2.0, 2)
