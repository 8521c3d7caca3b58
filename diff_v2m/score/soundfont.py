"""SoundFont files (sf2, sf3): read the tables, write a smaller file that holds a selection of presets.

A SoundFont is a RIFF file. A preset lists instruments, an instrument lists samples; each list is a run of zones, each
zone a run of generators. sf3 stores every sample as an Ogg Vorbis stream, which is copied here without decoding.
Source: SoundFont Technical Specification 2.04, section 7.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from diff_v2m.common.errors import InputError

DRUM_BANK = 128
_INSTRUMENT, _SAMPLE = 41, 53  # generators that refer to the next level
_VORBIS = 0x10  # flag of a sample's type
_SILENCE = 46  # zero samples after each sample, as the specification asks for

_PRESET = np.dtype(
    [("name", "S20"), ("preset", "<u2"), ("bank", "<u2"), ("zone", "<u2"), ("library", "<u4", 3)],
)
_INST = np.dtype([("name", "S20"), ("zone", "<u2")])
_ZONE = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_GENERATOR = np.dtype([("kind", "<u2"), ("amount", "<u2")])
_MODULATOR = np.dtype([("fields", "<u2", 5)])
_HEADER = np.dtype(
    [("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop_start", "<u4"), ("loop_end", "<u4"), ("rate", "<u4")]
    + [("pitch", "u1"), ("correction", "i1"), ("link", "<u2"), ("type", "<u2")]
)
_TABLES = {
    "phdr": _PRESET,
    "pbag": _ZONE,
    "pmod": _MODULATOR,
    "pgen": _GENERATOR,
    "inst": _INST,
    "ibag": _ZONE,
    "imod": _MODULATOR,
    "igen": _GENERATOR,
    "shdr": _HEADER,
}


@dataclass(frozen=True)
class SoundFontFile:
    """The tables of one file, in file order, and the bytes of its samples."""

    path: Path
    tables: dict[str, np.ndarray]
    samples: memoryview

    @property
    def presets(self) -> dict[tuple[int, int], int]:
        """(bank, program) → row of the preset table."""
        rows = self.tables["phdr"][:-1]
        return {(int(row["bank"]), int(row["preset"])): index for index, row in enumerate(rows)}


def read(path: str | Path) -> SoundFontFile:
    """Read an sf2 or sf3 file. Raises InputError if it is not one."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the name and its permissions") from None
    chunks = _chunks(content)
    missing = [name for name in ("smpl", *_TABLES) if name not in chunks]
    if missing:
        raise InputError(f"{path}: not a SoundFont (no chunk {missing[0]}); give a whole .sf2 or .sf3 file")
    try:
        tables = {name: np.frombuffer(chunks[name], dtype) for name, dtype in _TABLES.items()}
    except ValueError:
        raise InputError(f"{path}: broken SoundFont (a table is cut off); give a whole .sf2 or .sf3 file") from None
    return SoundFontFile(path, tables, chunks["smpl"])


def build(
    selection: list[tuple[SoundFontFile, int, int]],
    name: str,
    comment: str,
    added: Mapping[tuple[int, int], Mapping[int, int]] = MappingProxyType({}),
) -> bytes:
    """A SoundFont that holds the given presets (file, bank, program), in this order, with what they refer to.

    `added`: (bank, program) → generator → amount, for each zone of the preset; a preset's amounts add to its samples'.

    Raises InputError if a file lacks a preset or refers outside its tables.
    """
    writer = _Writer()
    for source, bank, program in selection:
        if (bank, program) not in source.presets:
            kind = "drum kit" if bank == DRUM_BANK else "program"
            raise InputError(f"{source.path}: has no {kind} {program}; give a General MIDI SoundFont")
        try:
            writer.add_preset(source, source.presets[bank, program], added.get((bank, program), {}))
        except IndexError:
            raise InputError(f"{source.path}: broken SoundFont (program {program} refers outside the file)") from None
    return writer.content(name, comment)


def _chunks(content: bytes) -> dict[str, memoryview]:
    """Name → bytes of every chunk that is not a list. Some writers omit the padding byte after an odd length."""
    view, chunks = memoryview(content), {}

    def walk(at: int, end: int) -> None:
        while at + 8 <= end:
            name, length = content[at : at + 4].decode("latin-1"), struct.unpack_from("<I", content, at + 4)[0]
            if name in ("RIFF", "LIST"):
                walk(at + 12, min(at + 8 + length, end))
            elif at + 8 + length <= end:
                chunks[name] = view[at + 8 : at + 8 + length]
            at += 8 + length
            at += length % 2 and content[at : at + 1] == b"\0"

    walk(0, len(content))
    return chunks


class _Writer:
    """Collects presets, instruments and samples; each is written once, however often it is referred to."""

    def __init__(self) -> None:
        self.rows: dict[str, list] = {name: [] for name in _TABLES}
        self.samples: list[bytes] = []
        self.position = 0
        self.instruments: dict[tuple[int, int], int] = {}
        self.headers: dict[tuple[int, int], int] = {}

    def add_preset(self, source: SoundFontFile, row: int, added: Mapping[int, int]) -> None:
        header = source.tables["phdr"][row].copy()
        zones = self._zones(source, "p", source.tables["phdr"]["zone"], row, _INSTRUMENT, self._instrument)
        extra = np.array(list(added.items()), _GENERATOR)
        zones = [  # the reference to an instrument stays last, as the specification asks for
            (np.concatenate([generators[:-1], extra, generators[-1:]]), modulators)
            if len(generators) and generators["kind"][-1] == _INSTRUMENT
            else (generators, modulators)
            for generators, modulators in zones
        ]
        header["zone"] = self._append_zones("p", zones)
        self.rows["phdr"].append(header)

    def _instrument(self, source: SoundFontFile, row: int) -> int:
        key = (id(source), row)
        if key not in self.instruments:
            header = source.tables["inst"][row].copy()
            zones = self._zones(source, "i", source.tables["inst"]["zone"], row, _SAMPLE, self._sample)
            header["zone"] = self._append_zones("i", zones)
            self.instruments[key] = len(self.rows["inst"])
            self.rows["inst"].append(header)
        return self.instruments[key]

    def _sample(self, source: SoundFontFile, row: int) -> int:
        key = (id(source), row)
        if key not in self.headers:
            header = source.tables["shdr"][row].copy()
            compressed = bool(header["type"] & _VORBIS)
            unit = 1 if compressed else 2  # an offset counts bytes of Ogg or 16-bit samples
            data = bytes(source.samples[int(header["start"]) * unit : int(header["end"]) * unit])
            if not data:
                raise IndexError(row)
            padding = (-len(data)) % 2 if compressed else 2 * _SILENCE
            start = self.position // unit
            if not compressed:  # loops count from the start of the file in sf2, of the sample in sf3
                for name in ("loop_start", "loop_end"):
                    header[name] = int(header[name]) - int(header["start"]) + start
            header["start"], header["end"] = start, start + len(data) // unit
            header["link"], header["type"] = 0, (header["type"] & _VORBIS) | 1  # pairs are panned by their zones
            self.samples.append(data + bytes(padding))
            self.position += len(data) + padding
            self.headers[key] = len(self.rows["shdr"])
            self.rows["shdr"].append(header)
        return self.headers[key]

    def _zones(self, source, level, firsts, row, reference, translate) -> list[tuple[np.ndarray, np.ndarray]]:
        """Generators and modulators of each zone of a row; what refers to the next level refers to its new row."""
        bags, zones = source.tables[level + "bag"], []
        for zone in range(int(firsts[row]), int(firsts[row + 1])):
            first, after = bags[zone], bags[zone + 1]
            generators = source.tables[level + "gen"][first["generator"] : after["generator"]].copy()
            modulators = source.tables[level + "mod"][first["modulator"] : after["modulator"]]
            for generator in generators[generators["kind"] == reference]:
                new = translate(source, int(generator["amount"]))
                generators["amount"][generators["kind"] == reference] = new
            zones.append((generators, modulators))
        return zones

    def _append_zones(self, level: str, zones: list[tuple[np.ndarray, np.ndarray]]) -> int:
        first = len(self.rows[level + "bag"])
        for generators, modulators in zones:
            self.rows[level + "bag"].append((len(self.rows[level + "gen"]), len(self.rows[level + "mod"])))
            self.rows[level + "gen"].extend(generators)
            self.rows[level + "mod"].extend(modulators)
        return first

    def content(self, name: str, comment: str) -> bytes:
        """The file. Each table ends with the terminal row that the specification asks for."""
        rows, counts = self.rows, {table: len(self.rows[table]) for table in _TABLES}
        ends = {
            "phdr": (b"EOP", 0, 0, counts["pbag"], (0, 0, 0)),
            "pbag": (counts["pgen"], counts["pmod"]),
            "pmod": ((0,) * 5,),
            "pgen": (0, 0),
            "inst": (b"EOI", counts["ibag"]),
            "ibag": (counts["igen"], counts["imod"]),
            "imod": ((0,) * 5,),
            "igen": (0, 0),
            "shdr": (b"EOS", *(0,) * 9),
        }
        tables = [
            _chunk(table, np.array([*map(tuple, rows[table]), ends[table]], dtype).tobytes())
            for table, dtype in _TABLES.items()
        ]
        information = [_chunk("ifil", struct.pack("<HH", 3 if self._compressed() else 2, 1))]
        information += [_chunk("isng", b"EMU8000\0"), _chunk("INAM", _text(name)), _chunk("ICMT", _text(comment))]
        lists = [
            _chunk("LIST", b"INFO" + b"".join(information)),
            _chunk("LIST", b"sdta" + _chunk("smpl", b"".join(self.samples))),
            _chunk("LIST", b"pdta" + b"".join(tables)),
        ]
        return _chunk("RIFF", b"sfbk" + b"".join(lists))

    def _compressed(self) -> bool:
        return any(header["type"] & _VORBIS for header in self.rows["shdr"])


def _chunk(name: str, content: bytes) -> bytes:
    return name.encode() + struct.pack("<I", len(content)) + content


def _text(text: str) -> bytes:
    encoded = text.encode("ascii", "replace")
    return encoded + bytes(2 - len(encoded) % 2)
