"""SoundFont files: reading, writing a selection, refusing what is broken."""

import struct

import numpy as np
import pytest

from diff_v2m.common.errors import InputError
from diff_v2m.score.instruments import INSTRUMENTS, KITS, SOUNDFONT, nearest_kit, nearest_program
from diff_v2m.score.soundfont import DRUM_BANK, build, read


@pytest.fixture(scope="module")
def bundled():
    return read(SOUNDFONT)


def test_bundled_file_is_small_and_holds_every_instrument(bundled):
    assert SOUNDFONT.stat().st_size < 12e6
    wanted = {(0, program) for program in INSTRUMENTS} | {(DRUM_BANK, kit) for kit in KITS}
    assert set(bundled.presets) == wanted
    assert SOUNDFONT.with_suffix(".LICENSE").is_file()


def test_a_selection_of_a_selection_is_the_same_file(bundled, tmp_path):
    content = build([(bundled, 0, 73), (bundled, DRUM_BANK, 0)], "two", "")
    assert build([(bundled, 0, 73), (bundled, DRUM_BANK, 0)], "two", "") == content
    path = tmp_path / "two.sf3"
    path.write_bytes(content)
    again = read(path)
    assert set(again.presets) == {(0, 73), (DRUM_BANK, 0)}
    assert build([(again, 0, 73), (again, DRUM_BANK, 0)], "two", "") == content
    assert len(content) < SOUNDFONT.stat().st_size / 5


def test_uncompressed_samples_keep_their_loops(bundled, tmp_path):
    content = build([(bundled, 0, 73)], "flute", "")
    path = tmp_path / "flute.sf2"
    path.write_bytes(content)
    source = read(path)
    headers = source.tables["shdr"].copy()
    samples = np.arange(400 * len(headers), dtype="<i2").tobytes()
    for number, header in enumerate(headers[:-1]):  # as sf2: offsets in samples, loops from the start of the file
        start = 400 * number
        header["start"], header["end"], header["type"] = start, start + 300, 1
        header["loop_start"], header["loop_end"] = start + 100, start + 200
    plain = type(source)(path, source.tables | {"shdr": headers}, memoryview(samples))
    path.write_bytes(build([(plain, 0, 73)], "flute", ""))
    again = read(path)
    for old, new in zip(headers[:-1], again.tables["shdr"][:-1], strict=True):
        assert int(new["loop_start"]) - int(new["start"]) == 100 and int(new["loop_end"]) - int(new["start"]) == 200
        first, last = 2 * int(new["start"]), 2 * int(new["end"])
        assert bytes(again.samples[first:last]) == samples[2 * int(old["start"]) : 2 * int(old["end"])]


def test_broken_files_are_refused(tmp_path, bundled):
    content = build([(bundled, 0, 108)], "kalimba", "")
    cases = {"empty.sf3": b"", "text.sf3": b"hello" * 40, "half.sf3": content[: len(content) // 2]}
    cut = bytearray(content)
    at = content.rindex(b"shdr")
    cut[at + 4 : at + 8] = struct.pack("<I", 45)
    cases["table.sf3"] = bytes(cut)
    for name, broken in cases.items():
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "nothing.sf3")
    with pytest.raises(InputError, match="no program 5"):
        build([(bundled, 0, 5)], "", "")


def test_every_general_midi_program_has_a_stand_in():
    for program in range(128):
        assert nearest_program(program) in INSTRUMENTS
    assert nearest_program(41) in (40, 42) and nearest_program(57) == 56 and nearest_program(3) == 4
    assert [nearest_kit(kit) for kit in (0, 8, 40, 47, 48, 127)] == [0, 0, 40, 40, 48, 48]
