"""Whose a folder is, and that one process at a time works in it."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from multifaceted.evaluation.folder import Subject, opened
from multifaceted.evaluation.identity import Evaluated
from multifaceted.record_files import RecordError, read_json
from multifaceted.records import RESPONSES, RUN, SCORES, VERDICTS

HOLDER = """
import sys, time
from pathlib import Path
from multifaceted.evaluation.folder import Subject, opened
from multifaceted.evaluation.identity import Evaluated

with opened(Path(sys.argv[1]), Subject(who=Evaluated(path="p", fingerprint="f"), identity={"policy": "f"}, seed=0)):
    print("held", flush=True)
    time.sleep(60)
"""


def subject(judge=None, **identity):
    who = Evaluated(path="p", fingerprint="f")
    return Subject(who=who, identity={"policy": "f"} | identity, seed=0, judge=judge)


def test_a_second_process_is_refused_and_a_kill_frees_the_folder(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        (tmp_path / RESPONSES).write_text("paid for\n")
        refused = rf"^process {holder.pid} on .* evaluates into .* now.* into=\.\.\."
        with pytest.raises(RecordError, match=refused), opened(tmp_path, subject(), overwrite=True):
            pass
        assert (tmp_path / RESPONSES).exists(), "refused before anything is removed"
        holder.kill()
        holder.wait()
    with opened(tmp_path, subject()), pytest.raises(RecordError, match=f"^process {os.getpid()} on"):
        opened(tmp_path, subject()).__enter__()
    with opened(tmp_path, subject()) as record:
        assert record["policy"] == "f" and (tmp_path / RESPONSES).exists()


def test_a_judge_that_gave_no_verdict_keeps_no_other_out(tmp_path):
    with opened(tmp_path, subject({"name": "a"})):
        (tmp_path / RESPONSES).write_text("{}\n")
        (tmp_path / VERDICTS).touch()
    with opened(tmp_path, subject({"name": "b"})) as record:
        assert record["judge"] == {"name": "b"} and (tmp_path / RESPONSES).exists()


def test_where_no_lock_can_be_had_that_is_said(tmp_path, monkeypatch, caplog):
    def without_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without_locks)
    with opened(tmp_path, subject()):
        assert "no lock can be had" in caplog.text


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (subject(policy="g"), r"something else .*policy"),
        (subject(seed=1), r"something else .*seed"),
        (subject({"name": "b"}), "of another"),
    ],
)
def test_what_others_left_is_refused_and_kept(tmp_path, other, says):
    with opened(tmp_path, subject({"name": "a"})):
        (tmp_path / RESPONSES).write_text("{}\n")
        (tmp_path / VERDICTS).write_text("{}\n")
    before = (tmp_path / RUN).read_bytes()
    with pytest.raises(RecordError, match=says), opened(tmp_path, other):
        pass
    assert (tmp_path / RUN).read_bytes() == before and (tmp_path / RESPONSES).exists()
    with opened(tmp_path, other, overwrite=True):
        assert not (tmp_path / RESPONSES).exists() and not (tmp_path / VERDICTS).exists()


def test_nothing_made_from_nothing_outlives_its_subject(tmp_path):
    """Where nothing was answered yet, verdicts and scores are of others."""
    (tmp_path / SCORES).write_text("{}")
    (tmp_path / RESPONSES).write_text("")
    with opened(tmp_path, subject()) as record:
        assert not (tmp_path / SCORES).exists() and record["facts"]["seed"] == 0
    facts = read_json(tmp_path / RUN)["facts"]
    (tmp_path / RESPONSES).write_text("{}\n")
    with opened(tmp_path, subject()) as record:
        assert record["facts"] == facts, "those of whoever began"
