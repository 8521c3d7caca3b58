"""Markers of editing programs: each format as its program writes it, back and forth, and malformed."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.scores import small_score

from diff_v2m.__main__ import main
from diff_v2m.common.errors import InputError
from diff_v2m.cues import Cue, CueSheet
from diff_v2m.cues.marker import Marker
from diff_v2m.cues.markers import FORMATS, cue_of, read_cues, write_cues
from diff_v2m.cues.timebase import Timebase, parse_rate, parse_start
from diff_v2m.score.midi import write_midi

PAL = Timebase(Fraction(25))
RESOLVE = """TITLE: reel 1
FCM: NON-DROP FRAME

001  001      V     C        01:00:12:12 01:00:12:13 01:00:12:12 01:00:12:13
 |C:ResolveColorRed |M:door |D:1

002  001      V     C        01:00:20:00 01:00:20:01 01:00:20:00 01:00:20:01
 |C:ResolveColorBlue |M:silence: 0.2 |D:75

"""
CMX = """TITLE: reel 1
FCM: NON-DROP FRAME
001  AX       V     C        00:00:00:00 00:00:10:00 00:00:00:00 00:00:10:00
* FROM CLIP NAME: a.mov
* LOC: 00:00:04:05 RED     door
002  AX       V     C        00:00:10:00 00:00:20:00 00:00:10:00 00:00:20:00
* LOC: 00:00:12:00 GREEN   Hit the road
"""
FCPXML = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE fcpxml>
<fcpxml version="1.10"><resources>
<format id="r1" frameDuration="1001/30000s"/></resources>
<library><event><project name="p"><sequence format="r1" tcStart="3600s" duration="30s">
<spine>
 <asset-clip offset="3600s" start="100s" duration="10s"><marker start="104s" duration="1001/30000s" value="door"/>
  <marker start="120s" duration="1001/30000s" value="outside the clip"/>
  <title lane="1" offset="103s" start="0s" duration="4s"><marker start="2s" duration="1s" value="nested"/></title>
 </asset-clip>
 <gap start="3600s" duration="10s"><marker start="108108/30s" duration="2s" value="mood: navy gold -- night"/></gap>
</spine></sequence></project></event></library></fcpxml>
"""
FCP7 = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE xmeml>
<xmeml version="4"><sequence id="s"><rate><timebase>25</timebase><ntsc>FALSE</ntsc></rate>
<media><video><track>
<clipitem><rate><timebase>25</timebase><ntsc>FALSE</ntsc></rate><start>250</start><end>500</end><in>50</in><out>300</out>
<marker><name>door</name><comment/><in>75</in><out>-1</out></marker>
<marker><name>unused</name><comment/><in>10</in><out>-1</out></marker></clipitem>
<clipitem><start>-1</start><end>600</end><in>0</in><out>50</out>
<marker><name/><comment>late</comment><in>25</in><out>-1</out></marker></clipitem>
</track></video></media>
<marker><comment/><name>silence: 1 0.2</name><in>100</in><out>150</out></marker>
</sequence></xmeml>
"""
REAPER = '#,Name,Start,End,Length\nM1,"door, left",0:12.480,,\nR2,mood: navy,1:01.5,1:05.25,0:03.75\n'
SRT = "1\n00:00:12,480 --> 00:00:13,000\ndoor\n\n2\n00:01:01,500 --> 00:01:05,250\nmood: navy\n"
VTT = "WEBVTT\n\n00:12.480 --> 00:13.000\ndoor\n\n00:01:01.500 --> 00:01:05.250\nmood: navy\n"

READ = {
    "reel.edl": (RESOLVE, [(12.48, "hit", None, "door", None), (20.0, "silence", "0.2", "", 23.0)]),
    "avid.edl": (CMX, [(4.2, "hit", None, "door", None), (12.0, "hit", None, "Hit the road", None)]),
    "cut.fcpxml": (
        FCPXML,
        [
            (4.0, "hit", None, "door", None),
            (5.0, "hit", None, "nested", None),
            (13.6, "mood", "navy gold", "night", 15.6),
        ],
    ),
    "cut.xml": (
        FCP7,
        [
            (4.0, "silence", "1 0.2", "", 6.0),
            (11.0, "hit", None, "door", None),
            (23.0, "hit", None, "late", None),
        ],
    ),
    "markers.csv": (REAPER, [(12.48, "hit", None, "door, left", None), (61.5, "mood", "navy", "", 65.25)]),
    "markers.srt": (SRT, [(12.48, "hit", None, "door", None), (61.5, "mood", "navy", "", 65.25)]),
    "markers.vtt": (VTT, [(12.48, "hit", None, "door", None), (61.5, "mood", "navy", "", 65.25)]),
}


@pytest.mark.parametrize("name", READ)
def test_markers_as_programs_write_them(tmp_path, name):
    text, expected = READ[name]
    (tmp_path / name).write_text(text)
    cues = read_cues(tmp_path / name, PAL).cues
    found = [(round(c.time, 6), c.kind, c.value, c.name, c.stop and round(c.stop, 6)) for c in cues]
    assert found == expected


NESTED = """<fcpxml version="1.10"><library><event><project><sequence tcStart="3600s" duration="30s"><spine>
<sync-clip offset="3602s" start="100s" duration="10s">
 <asset-clip offset="0s" start="0s" duration="300s">
  <marker start="5s" duration="1/25s" value="before"/>
  <marker start="103s" duration="1/25s" value="shown"/>
  <marker start="200s" duration="1/25s" value="after"/>
  <title lane="1" offset="105s" start="0s" duration="20s"><marker start="1s" duration="1/25s" value="title"/>
   <marker start="9s" duration="1/25s" value="title after the outer clip"/></title>
 </asset-clip>
 <spine><gap offset="95s" duration="7s"><marker start="2s" duration="1/25s" value="gap before"/>
  <marker start="6s" duration="1/25s" value="gap"/></gap></spine>
 <title lane="2" offset="108s" start="0s" duration="4s"><marker start="3s" duration="1/25s" value="connected"/></title>
 <marker start="100s" duration="1/25s" value="first"/><marker start="110s" duration="1/25s" value="too late"/>
</sync-clip>
</spine></sequence></project></event></library></fcpxml>
"""


def test_a_nested_clip_is_read_as_far_as_the_outer_one_shows_it(tmp_path):
    (tmp_path / "cut.fcpxml").write_text(NESTED)
    found = {cue.name: cue.time for cue in read_cues(tmp_path / "cut.fcpxml", PAL).cues}
    assert found == {"first": 2.0, "gap": 3.0, "shown": 5.0, "title": 8.0, "connected": 13.0}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rate, start", [("25", "01:00:00:00"), ("29.97", "01:00:00;00"), ("23.976", "00:00:00:00")])
def test_every_format_reads_back_what_it_writes(tmp_path, form, rate, start):
    timebase = Timebase(parse_rate(rate), start, drop_frame=";" in start)
    frame = float(timebase.frame_duration())
    cues = [Cue(100 * frame, "hit", None, '"a" & b > c'), Cue(700 * frame, "cut"), Cue(2000 * frame, "beat", 0.25)]
    spans = [
        Cue(2100 * frame, "silence", "1 0.2", "talk", 2200 * frame),
        Cue(3000 * frame, "mood", "navy #ff8800", "n", 3333 * frame),
    ]
    sheet = CueSheet(cues + spans)
    path = tmp_path / f"markers{FORMATS[form].suffix}"
    write_cues(path, sheet, timebase, form)
    back = read_cues(path, timebase)
    assert [(c.kind, c.value, c.name) for c in back.cues] == [(c.kind, c.value, c.name) for c in sheet.cues]
    for was, now in zip(sheet.cues, back.cues, strict=True):
        assert now.time == pytest.approx(was.time, abs=6e-4)
        assert now.stop == (was.stop and pytest.approx(was.stop, abs=6e-4))


@pytest.mark.parametrize(
    "cue",
    [
        Cue(0, "cut", "none"),
        Cue(0, "beat", "none", "a still picture"),
        Cue(5, "cut", None, "none"),
        Cue(5, "cut", None, "2nd scene"),
        Cue(5, "hit", None, "1st chorus"),
        Cue(5, "hit", None, "3 knocks"),
        Cue(5, "hit", 0.5, "3 knocks"),
        Cue(5, "hit", None, "-- door"),
        Cue(5, "hit", None, "left -- right"),
        Cue(5, "silence", None, "2 bars", 9),
        Cue(5, "silence", "1", "2 bars", 9),
        Cue(5, "silence", "1 .2", "2 bars", 9),
        Cue(5, "mood", "navy gold", "2 -- night", 9),
    ],
)
@pytest.mark.parametrize("form", FORMATS)
def test_a_name_is_not_taken_for_a_value(tmp_path, form, cue):
    path = tmp_path / f"markers{FORMATS[form].suffix}"
    write_cues(path, CueSheet([cue]), PAL, form)
    assert read_cues(path, PAL) == CueSheet([cue])


@pytest.mark.parametrize(
    "name, value, rest",
    [
        ("hit: 0,5 door", 0.5, "door"),
        ("hit: 1st chorus", None, "1st chorus"),
        ("hit: -- 3 knocks", None, "3 knocks"),
        ("CUT: None", "none", ""),
        ("cut: nonesuch", None, "nonesuch"),
        ("beat: .25", 0.25, ""),
        ("rhythm: 1.5 loud", 1.5, "loud"),
    ],
)
def test_names_as_people_write_them(name, value, rest):
    cue = cue_of(Marker(1.0, name), None)
    assert (cue.value, cue.name) == (value, rest)


BAD = {
    "event.edl": (RESOLVE.replace("01:00:20:00 01:00:20:01\n", "01:00:20:00 01:00:2\n"), "line 7: .*four timecodes"),
    "frame.edl": (RESOLVE.replace("01:00:12:12 01:00:12:13\n", "01:00:12:25 01:00:12:13\n"), "line 4: .*25 frames"),
    "field.edl": (RESOLVE.replace("|D:75", "|D:x"), r"line 8: .*\|D:frames"),
    "loc.edl": (CMX.replace("00:00:12:00 GREEN", "00:00:12 GREEN"), "line 7: .*LOC"),
    "none.edl": ("TITLE: x\nFCM: NON-DROP FRAME\n", "no markers"),
    "open.fcpxml": (FCPXML.replace("</spine>", ""), "line 12: no XML"),
    "time.fcpxml": (FCPXML.replace('"104s"', '"104"'), "line 7: start is '104'"),
    "two.fcpxml": (FCPXML.replace("<library>", "<library><sequence/>"), "2 timelines"),
    "frames.xml": (FCP7.replace("<in>75<", "<in>7.5<"), "line 6: <in> is '7.5'"),
    "beats.csv": (REAPER.replace("0:12.480", "7.1.00"), "line 2: .*ruler"),
    "time.csv": (REAPER.replace("1:01.5", "1:61.5"), "line 3: .*no time"),
    "columns.csv": ("a,b\n1,2\n", "line 1"),
    "time.srt": (SRT.replace("00:01:01,500", "00:01:xx"), "line 6"),
    "order.srt": (SRT.replace("00:00:13,000", "00:00:11,000"), "line 2: .*ends before"),
    "value.srt": (SRT.replace("navy", "nawy"), "line 6: mood .*'nawy'"),
    "length.edl": (RESOLVE.replace("D:75", "D:1"), "line 7: .*no length"),
    "latin.srt": (SRT.replace("door", "t\xfcr"), "line 3: not UTF-8"),
    "film.doc": ("", "not a format"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_line_is_named(tmp_path, name):
    text, message = BAD[name]
    (tmp_path / name).write_text(text, encoding="latin-1" if name.startswith("latin") else "utf-8")
    with pytest.raises(InputError, match=f"{name}: .*{message}|{name}: {message}") as error:
        read_cues(tmp_path / name, PAL)
    assert "\n" not in str(error.value)


def test_an_edl_may_have_a_dot_before_the_frames(tmp_path):
    (tmp_path / "reel.edl").write_text(CMX.replace("00:00:04:05", "00:01:00.04"))
    timebase = Timebase(parse_rate("29.97"))
    assert read_cues(tmp_path / "reel.edl", timebase)["hit"][1].time == pytest.approx(1802 * 1001 / 30000, abs=1e-6)
    assert timebase.seconds("00:01:00.04") == 60.04


@pytest.mark.parametrize("form", ["resolve", "cmx3600"])
def test_an_edl_with_three_digits_of_frames(tmp_path, form):
    timebase, sheet = Timebase(Fraction(120)), CueSheet([Cue(1.95, "hit", None, "door")])
    write_cues(tmp_path / "reel.edl", sheet, timebase, form)
    assert ":01:114" in (tmp_path / "reel.edl").read_text()
    assert read_cues(tmp_path / "reel.edl", timebase) == sheet


@pytest.mark.parametrize("flags, seconds", [([], 600.0), (["--timecode_start", "00:00:00:00"], 4200.0)])
def test_an_edl_starts_at_an_hour_unless_told_otherwise(tmp_path, flags, seconds):
    (tmp_path / "reel.edl").write_text(CMX.replace("00:00:04:05", "01:10:00:00").replace("00:00:12:00", "01:20:00:00"))
    command = ["cues", str(tmp_path / "reel.edl"), str(tmp_path / "reel.cues.csv"), "--fps", "25", *flags]
    assert main(command) == 0
    assert read_cues(tmp_path / "reel.cues.csv", Timebase())["hit"][0].time == seconds


def test_frames_of_the_start_are_checked_once_the_rate_is_known():
    start = parse_start("01:00:00:45")
    assert start.with_fps(Fraction(50)).seconds("01:00:01:00") == pytest.approx(0.1)
    with pytest.raises(InputError, match="--timecode_start: '01:00:00:45' .* 25 frames"):
        start.with_fps(Fraction(25))
    with pytest.raises(InputError, match="--timecode_start: '01:00:75:00' .*HH:MM:SS:FF"):
        parse_start("01:00:75:00")


def test_timecodes_need_a_frame_rate(tmp_path):
    (tmp_path / "reel.edl").write_text(RESOLVE)
    with pytest.raises(InputError, match="line 4: .*--fps"):
        read_cues(tmp_path / "reel.edl", Timebase())


@pytest.mark.parametrize(
    "rate, code, seconds",
    [
        ("25", "01:00:00:00", 3600),
        ("29.97", "00:10:00;00", 17982 * 1001 / 30000),
        ("29.97", "00:10:00:00", 18000 * 1001 / 30000),
        ("23.976", "00:00:10:00", 240 * 1001 / 24000),
        ("59.94", "00:01:00;04", 3600 * 1001 / 60000),
        ("50", "0:12.5", 12.5),
        ("50", "1:02:03", 3723),
        ("25", "00:01:12.12", 72.12),
        ("25", "1:02:03.500", 3723.5),
        ("29.97", "00;10;00;00", 17982 * 1001 / 30000),
    ],
)
def test_times(rate, code, seconds):
    assert Timebase(parse_rate(rate)).seconds(code) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("text", ["nan", "-1", "1:75", "00:00:12:30", "00:01:00;00x", "", "12-20"])
def test_what_is_no_time(text):
    with pytest.raises(ValueError):
        Timebase(Fraction(25)).seconds(text)


def test_dropped_frame_numbers_are_no_timecodes():
    with pytest.raises(ValueError):
        Timebase(parse_rate("29.97")).seconds("00:01:00;01")


def test_the_command_converts(tmp_path, caplog):
    (tmp_path / "reel.edl").write_text(RESOLVE)
    assert main(["cues", str(tmp_path / "reel.edl"), str(tmp_path / "reel.cues.csv"), "--fps", "25"]) == 0
    assert (tmp_path / "reel.cues.csv").read_text() == (
        "time,kind,value,name\n12.48,hit,,door\n20.0-23.0,silence,0.2,\n"
    )
    out = tmp_path / "reel.fcpxml"
    command = ["cues", str(tmp_path / "reel.cues.csv"), str(out), "--fps", "23.976", "--timecode_start", "01:00:00:00"]
    assert main(command) == 0
    assert [round(c.time, 1) for c in read_cues(out, Timebase()).cues] == [12.5, 20.0]
    assert main(["cues", str(tmp_path / "reel.cues.csv"), str(tmp_path / "x.edl")]) == 1
    assert "--fps" in caplog.text
    assert not (tmp_path / "x.edl").exists()


def test_beats_of_a_midi_file(tmp_path):
    score = small_score()
    write_midi(tmp_path / "x.mid", score)
    assert main(["cues", str(tmp_path / "x.mid"), str(tmp_path / "x.srt")]) == 0
    found = read_cues(tmp_path / "x.srt", Timebase())["beat"]
    assert len(found) == ((score.grid.beats >= 0) & (score.grid.beats < score.duration)).sum()


def test_beats_of_a_sound_file(tmp_path):
    audio = np.zeros(16000 * 12, np.float32)
    rng = np.random.default_rng(0)
    for start in np.arange(0.25, 11.9, 0.5):
        at = round(start * 16000)
        audio[at : at + 800] += rng.standard_normal(800).astype(np.float32) * np.exp(-np.arange(800) / 150)
    path: Path = tmp_path / "x.wav"
    soundfile.write(path, 0.2 * audio, 16000)
    assert main(["cues", str(path), str(tmp_path / "x.cues.csv")]) == 0
    beats = np.array([cue.time for cue in read_cues(tmp_path / "x.cues.csv", Timebase()).cues])
    assert len(beats) > 15
    assert np.abs((beats - 0.25 + 0.25) % 0.5 - 0.25).max() < 0.05
