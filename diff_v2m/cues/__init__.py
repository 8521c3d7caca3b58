"""Cue sheets: what a person wants of the music, second by second, and markers of editing programs.

sheet.py      Cue and CueSheet: rhythm, cuts, beats, hits, moods and silences of a video, checked
table.py      a sheet as CSV
markers.py    Marker, the table of marker formats, and markers ↔ cues
edl.py        marker EDL of Resolve, CMX 3600 with `* LOC:`
xml.py        FCPXML, and the XML of Final Cut Pro 7 that Premiere writes
lists.py      CSV of REAPER, SRT, WebVTT
timebase.py   timecodes ↔ seconds
beats.py      beats of finished music
apply.py      a sheet and the features of a video → what the model receives
command.py    `python -m diff_v2m cues`: converts between all of them
"""

from diff_v2m.cues.sheet import Cue, CueSheet

__all__ = ["Cue", "CueSheet"]
