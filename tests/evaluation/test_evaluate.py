"""The command line from folders to a report, and its messages for unusable inputs."""

import json
import logging
import os
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import soundfile
from helpers.eval_toys import (
    RATE,
    TOY_IMAGEBIND,
    clicks,
    music,
    noise,
    noise_like,
    save_imagebind,
    video_with_cuts,
    write,
)

from diff_v2m import media
from diff_v2m.common.files import content_hash
from inference import evaluate
from inference.encoders import imagebind, registry
from inference.encoders.base import Embedding

SECONDS = 4.0
CLIPS = 7  # more than five neighbours


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Real music, videos cut where it is loud, and the real music played softer, each with a manifest beside it."""
    from diff_v2m.features import rhythm

    root = tmp_path_factory.mktemp("folders")
    import torch

    for k in range(CLIPS):
        tune = music(k, SECONDS, period=0.4 + 0.05 * (k % 3)) + clicks([1.0, 2.52], SECONDS)
        write(root / "real" / f"{k}.wav", tune)
        write(root / "made" / f"{k}.wav", 0.7 * tune)
        predicted = rhythm.odf(torch.from_numpy(tune), RATE)[:, 0].tolist()
        manifest = {"generator": "diff-v2m 1", "predicted_rhythm": predicted}
        (root / "made" / f"{k}.json").write_text(json.dumps(manifest))
        video_with_cuts(root / "videos" / f"{k}.mp4", [1.0, 2.52], SECONDS)
    return root


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # pytest has its own


def evaluated(output, cache, *arguments):
    """(exit status, report.json)."""
    arguments = [
        "--output",
        str(output),
        "--cache",
        str(cache),
        "--bootstrap",
        "20",
        "--weights-dir",
        str(output / "no weights"),
        *map(str, arguments),
    ]
    status = evaluate.main(arguments)
    path = output / "report.json"
    return status, json.loads(path.read_text()) if path.exists() else None


def by_id(report):
    return {metric["id"]: metric for metric in report["figures"]}


@pytest.mark.slow
def test_a_whole_report(folders, cache, tmp_path):
    made, real, videos = (folders / name for name in ("made", "real", "videos"))
    status, report = evaluated(
        tmp_path, cache, "--generated", made, "--reference", real, "--videos", videos, "--training", real
    )
    assert status == 0 and report["left_out"] == {}
    metrics = by_id(report)
    assert set(metrics["rhythm_r_predicted"]["per_clip"]) == {str(k) for k in range(CLIPS)}
    for id in ("rhythm_r_predicted", "rhythm_r_reference"):
        assert metrics[id]["value"] > 0.9 and metrics[id]["n"] == CLIPS
        low, high = metrics[id]["interval"]
        assert low <= metrics[id]["value"] <= high
    assert metrics["cuts_hit_rate_100"]["real"] is not None and metrics["cuts_hit_rate_100"]["chance"] is not None
    assert metrics["coverage_mel"]["n"] == CLIPS
    assert metrics["nearest_other"]["settings"]["copies"] == {}
    assert metrics["duration_error"]["value"] == pytest.approx(0, abs=0.05)
    assert "vggish-10086976.pth" in metrics["fad_vggish"]["not_computed"] and metrics["fad_vggish"]["value"] is None
    clip = report["clips"]["0"]
    assert (tmp_path / clip["audio"]).resolve() == (made / "0.wav").resolve()
    assert (tmp_path / clip["video"]).resolve() == (videos / "0.mp4").resolve()
    assert len(clip["achieved_rhythm"]) == len(clip["predicted_rhythm"]) == SECONDS
    np.testing.assert_allclose(clip["cuts"], [1.0, 2.52], atol=0.021)
    assert report["versions"]["mir_eval"] and report["embedders"]["panns"].startswith("missing")
    markdown = (tmp_path / "report.md").read_text()
    assert "Not computed" in markdown and "| FD (log-mel) ↓ |" in markdown


@pytest.mark.slow
def test_the_same_evaluation_gives_the_same_report_whatever_the_order_of_files(folders, cache, tmp_path):
    texts = []
    for name, order in (("one", range(CLIPS)), ("two", reversed(range(CLIPS)))):
        for k in order:
            for side in ("made", "real"):
                write(tmp_path / name / side / f"{k}.wav", soundfile.read(folders / side / f"{k}.wav")[0])
        evaluated(
            tmp_path / name / "report",
            tmp_path / name / "cache",
            "--generated",
            tmp_path / name / "made",
            "--reference",
            tmp_path / name / "real",
            "--metrics",
            "fad",
            "density_coverage",
            "rhythm",
            "audio",
        )
        texts.append((tmp_path / name / "report" / "report.json").read_text().replace(f"/{name}/", "/"))
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_silence_noise_and_shuffled_music_rank_where_they_must(folders, cache, tmp_path):
    found = {}
    for name in ("silence", "noise", "disguised noise", "shuffled"):
        for k in range(CLIPS):
            right, other = (soundfile.read(folders / "made" / f"{i % CLIPS}.wav")[0] for i in (k, k + 1))
            audio = {
                "silence": 0 * right,
                "noise": noise(k, SECONDS),
                "disguised noise": noise_like(right),
                "shuffled": other,
            }[name]
            write(tmp_path / name / f"{k}.wav", audio)
        found[name] = tmp_path / name
    scores = {}
    for name, folder in {"right": folders / "made", **found}.items():
        _, report = evaluated(
            tmp_path / f"report {name}",
            cache,
            "--generated",
            folder,
            "--reference",
            folders / "real",
            "--metrics",
            "fad",
            "rhythm",
            "audio",
            "density_coverage",
        )
        scores[name] = {id: metric["value"] for id, metric in by_id(report).items()}
    for name in ("silence", "noise", "disguised noise"):
        assert scores[name]["fad_mel"] > 5 * scores["right"]["fad_mel"]
        assert scores[name]["coverage_mel"] == 0 < scores["right"]["coverage_mel"]
    for name in ("silence", "noise", "shuffled"):
        assert scores[name]["rhythm_r_reference"] < scores["right"]["rhythm_r_reference"] - 0.1
    assert scores["shuffled"]["fad_mel"] == pytest.approx(scores["right"]["fad_mel"])  # FAD knows nothing of pairs
    assert scores["disguised noise"]["noisiness"] > 0.4 > 0.2 > scores["right"]["noisiness"]
    assert scores["silence"]["silence"] == 1 and scores["silence"]["rhythm_r_reference"] == 0
    assert scores["silence"]["copies_of_other"] == 1


@pytest.mark.slow
def test_variations_are_compared_with_the_partner_of_their_clip(folders, cache, tmp_path, caplog):
    for k in range(2):
        for name, variation in ((str(k), 1), (f"{k}_v2", 2)):
            write(tmp_path / "made" / f"{name}.wav", soundfile.read(folders / "made" / f"{k}.wav")[0])
            manifest = {"generator": "diff-v2m 1", "request": {"variation": variation}}
            (tmp_path / "made" / f"{name}.json").write_text(json.dumps(manifest))
    arguments = ("--generated", tmp_path / "made", "--reference", folders / "real", "--videos", folders / "videos")
    status, report = evaluated(tmp_path / "report", cache, *arguments, "--metrics", "rhythm")
    assert status == 0 and not report["left_out"], caplog.text
    scores = by_id(report)["rhythm_r_reference"]["per_clip"]
    assert scores.keys() == {"0", "0_v2", "1", "1_v2"} and scores["0"] == scores["0_v2"]
    for path in (tmp_path / "made").glob("*_v2.*"):
        path.unlink()
    _, alone = evaluated(tmp_path / "alone", cache, *arguments, "--metrics", "rhythm")
    chance = [by_id(found)["rhythm_r_reference"]["chance"] for found in (report, alone)]
    assert chance[0] == pytest.approx(chance[1]), "a variation's own partner is no chance level"


@pytest.mark.slow
def test_a_bad_clip_is_skipped_as_a_pair_listed_and_does_not_stop_the_others(folders, cache, tmp_path, caplog):
    for k in range(4):
        write(tmp_path / "made" / f"{k}.wav", soundfile.read(folders / "made" / f"{k}.wav")[0])
    (tmp_path / "made" / "0.wav").write_bytes(b"RIFF not a wav")
    write(tmp_path / "made" / "1.wav", music(1, 0.2))
    write(tmp_path / "made" / "nobody.wav", music(9, SECONDS))
    status, report = evaluated(
        tmp_path / "report",
        cache,
        "--generated",
        tmp_path / "made",
        "--reference",
        folders / "real",
        "--metrics",
        "rhythm",
        "fad",
    )
    assert status == 1
    assert set(report["left_out"]) == {"0", "1", "nobody"}
    assert set(by_id(report)["rhythm_r_reference"]["per_clip"]) == {"2", "3"}
    assert by_id(report)["fad_mel"]["n"] == 3  # a clip without a partner still counts where no partner is needed
    reasons = [reason for reasons in report["left_out"].values() for reason in reasons]
    assert all("\n" not in reason for reason in reasons)
    assert "not a readable wav" in str(report["left_out"]["0"]) and "0.20 s long" in str(report["left_out"]["1"])
    assert "no reference of that name" in str(report["left_out"]["nobody"])
    assert "3 skipped: 0, 1, nobody" in caplog.text
    assert "skipped: nobody: " in caplog.text and "error: " not in caplog.text


@pytest.mark.slow
def test_sample_rates_and_channels_may_differ(folders, cache, tmp_path):
    for k in range(3):
        tune = soundfile.read(folders / "made" / f"{k}.wav")[0]
        audio, rate = (np.stack([tune, tune]), RATE) if k == 0 else (np.repeat(tune, k), k * RATE)
        write(tmp_path / "made" / f"{k}.wav", audio, rate)
    status, report = evaluated(
        tmp_path / "report",
        cache,
        "--generated",
        tmp_path / "made",
        "--reference",
        folders / "real",
        "--metrics",
        "audio",
        "rhythm",
    )
    assert status == 0
    assert by_id(report)["duration_error"]["value"] == pytest.approx(0, abs=0.01)
    assert min(by_id(report)["rhythm_r_reference"]["per_clip"].values()) > 0.7


@pytest.mark.parametrize("kind", ["one file", "other names"])
def test_sets_that_cannot_be_compared_say_so_in_place_of_a_number(folders, cache, tmp_path, kind):
    names = {"one file": ["0"], "other names": ["x", "y"]}[kind]
    for k, name in enumerate(names):
        write(tmp_path / "made" / f"{name}.wav", soundfile.read(folders / "made" / f"{k}.wav")[0])
    status, report = evaluated(
        tmp_path / "report",
        cache,
        "--generated",
        tmp_path / "made",
        "--reference",
        folders / "real",
        "--metrics",
        "rhythm",
        "density_coverage",
        "kl",
    )
    metrics = by_id(report)
    assert status == 0 and "neighbours need more" in metrics["coverage_mel"]["not_computed"]
    if kind == "one file":
        assert metrics["rhythm_r_reference"]["n"] == 1 and metrics["rhythm_r_reference"]["interval"] is None
    else:
        assert "same stem (generated: x, …; reference: 0, …)" in metrics["rhythm_r_reference"]["not_computed"]


class Tagger:
    """An encoder without weights, of four numbers and three classes."""

    name = identity = "toy tagger"
    sample_rate, shortest = RATE, 0.5

    def embed(self, audio):
        levels = np.abs(audio[: len(audio) // 4 * 4]).reshape(4, -1).mean(axis=1)
        return Embedding(levels[None], levels[:3])


def test_real_music_that_cannot_be_read_leaves_the_metrics_that_need_none(folders, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "0.wav").write_bytes(b"RIFF no")
    write(tmp_path / "real" / "1.wav", music(1, 0.2))  # too short for the encoder
    monkeypatch.setattr(registry, "load_encoder", lambda *_: Tagger())
    sets = ("--generated", folders / "made", "--reference", tmp_path / "real")
    status, report = evaluated(tmp_path / "report", tmp_path / "cache", *sets, "--metrics", "kl", "audio")
    metrics = by_id(report)
    assert status == 1 and {"0", "1"} <= report["left_out"].keys()
    for id in ("inception_score", "aesthetics_ce", "aesthetics_pq"):
        assert metrics[id]["value"] is not None and metrics[id]["real"] is None
    assert "none of 2 clips could be embedded" in metrics["kl_softmax"]["not_computed"]


def test_a_folder_without_music_and_a_wrong_flag_are_one_line(folders, cache, tmp_path, caplog, capsys):
    (tmp_path / "empty").mkdir()
    status, report = evaluated(tmp_path / "report", cache, "--generated", tmp_path / "empty")
    assert status == 1 and report is None
    assert caplog.records[-1].getMessage().startswith("error: --generated: no audio files in")
    with pytest.raises(SystemExit):
        evaluate.main(["--generated", "a", "--reference", "b", "--dataset-config", "c"])
    assert "not both" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        evaluate.main(["--generated", "a", "--seed", "-1"])
    assert "'-1': expected a whole number from 0 up" in capsys.readouterr().err


@pytest.mark.slow
def test_imagebind_compares_each_video_with_its_music(folders, cache, tmp_path, monkeypatch):
    weights = save_imagebind(tmp_path / "weights" / imagebind.WEIGHTS.name)
    monkeypatch.setattr(imagebind, "ImageBindEncoder", partial(imagebind.ImageBindEncoder, **TOY_IMAGEBIND))
    made, videos = tmp_path / "made", tmp_path / "videos"
    for k in range(3):
        write(made / f"{k}.wav", music(k, SECONDS))
        video_with_cuts(videos / f"{k}.mp4", [1.0 + k], SECONDS)
    (videos / "2.mp4").write_bytes(b"no video")

    def cosines():
        status, report = evaluated(
            tmp_path / "report",
            cache,
            "--generated",
            made,
            "--videos",
            videos,
            "--weights-dir",
            tmp_path / "weights",
            "--metrics",
            "imagebind_score",
        )
        assert status == 1 and list(report["left_out"]) == ["2"]
        assert content_hash(weights) in report["embedders"]["imagebind"]
        return by_id(report)["imagebind"]

    first = cosines()
    network = imagebind.load(tmp_path / "weights", "cpu")
    video, audio = (
        network.embed_video(videos / "1.mp4").clip,
        network.embed(media.read_audio(made / "1.wav", 16000, 1)[0]).clip,
    )
    cosine = video @ audio / np.linalg.norm(video) / np.linalg.norm(audio)
    assert first["n"] == 2 and first["per_clip"]["1"] == pytest.approx(cosine, abs=1e-4)
    assert -1 <= first["chance"] <= 1 and cosines() == first  # the second time from the cache


@pytest.mark.slow
def test_a_name_that_is_not_utf8_is_a_clip_like_any_other(folders, cache, tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9")
    for side, suffix in (("made", "wav"), ("real", "wav"), ("videos", "mp4")):
        (tmp_path / side).mkdir()
        shutil.copy(folders / side / f"0.{suffix}", tmp_path / side / f"{name}.{suffix}")
    sides = ["--generated", tmp_path / "made", "--reference", tmp_path / "real", "--videos", tmp_path / "videos"]
    status, report = evaluated(tmp_path / "report", cache, *sides, "--metrics", "rhythm", "audio")
    assert status == 0 and list(report["clips"]) == [name]
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(f'src="../{path}"' in page for path in ("made/caf%E9.wav", "real/caf%E9.wav", "videos/caf%E9.mp4"))
    (tmp_path / "made" / f"{name}2.wav").write_bytes(b"RIFF not a wav")
    capsys.readouterr()
    sys.stderr.reconfigure(errors="backslashreplace")  # as it is outside of pytest
    assert evaluate.main([str(part) for part in (*sides, "--cache", cache)], metric="audio") == 1
    assert "- caf\\udce92: " in capsys.readouterr().out


@pytest.mark.slow
def test_surround_has_its_quality_measured(tmp_path):
    write(tmp_path / "made" / "5.1.flac", np.tile(music(0, SECONDS), (6, 1)))
    status, report = evaluated(tmp_path, tmp_path / "cache", "--generated", tmp_path / "made", "--metrics", "audio")
    assert status == 0 and by_id(report)["lufs"]["per_clip"]["5.1"] < 0


def test_one_metric_is_a_script_that_writes_to_the_terminal(folders, cache, tmp_path, capsys):
    status = evaluate.main(
        [
            "--generated",
            str(folders / "made"),
            "--reference",
            str(folders / "real"),
            "--cache",
            str(cache),
            "--bootstrap",
            "0",
            "--weights-dir",
            str(tmp_path),
        ],
        metric="fad",
    )
    assert status == 0
    assert "| FD (log-mel) ↓ |" in capsys.readouterr().out
    assert not (tmp_path / "report").exists()
