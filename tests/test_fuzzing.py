"""A sample of what `benchmarks/fuzz.py` does at length: damaged files against every loader."""

import time
from pathlib import Path

import pytest
from fuzzing import cases as drawn
from fuzzing.cases import ALONE, Case, Step, cases, numbered, whole_files
from fuzzing.limits import Hang, limited
from fuzzing.loaders import LOADERS, Loader, folder_of
from fuzzing.shells import shell_of
from fuzzing.trying import tried
from fuzzing.working import results
from hypothesis import given, settings

SAMPLE = 5  # files for each loader


NOTHING = Step("zeroed", (0, 0))


@pytest.mark.parametrize("name", LOADERS)
def test_whole_files_are_read(name):
    """Else their damage would show nothing; and so they are when a shell was opened and closed again."""
    for file, content in whole_files(name).items():
        steps = NOTHING, NOTHING._replace(part=0)
        for step in steps[: 2 if shell_of(content) else 1]:
            outcome = tried(Case(name, file, (step,)), folder_of(name))
            assert outcome.kind == "read", (file, outcome)


@pytest.mark.parametrize("name", LOADERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name):
    @settings(max_examples=SAMPLE, derandomize=True, **ALONE)
    @given(cases(LOADERS[name], whole_files(name)))
    def hold(case: Case) -> None:
        outcome = tried(case, folder_of(name))
        assert outcome.right, outcome

    hold()


# ---- the judge ----


def spinning() -> None:
    while True:
        pass


def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "kind, what",
    [
        ("read", lambda path: path.read_text()),
        ("refused", lambda path: raising(ValueError(f"{path}: no"))),
        ("refused", lambda path: raising(FileNotFoundError(f"{path}: no"))),
        ("unnamed", lambda path: raising(ValueError("no"))),
        ("lines", lambda path: raising(ValueError(f"{path}:\nno"))),
        ("lines", lambda path: raising(ValueError(f"{path}: {'x' * 5000}"))),
        ("traceback", lambda path: raising(KeyError("a"))),
        ("traceback", lambda path: raising(SystemExit(1))),
        ("traceback", lambda path: bytearray(2**40)),
        ("hang", lambda path: spinning()),
        ("left", lambda path: Path("here").touch()),
        ("left", lambda path: path.with_name("beside").touch()),
    ],
)
def test_each_end_is_called_by_its_name(tmp_path, monkeypatch, kind, what):
    monkeypatch.setitem(LOADERS, "one", Loader("one", lambda folder: None, lambda root, damaged: what(damaged)))
    monkeypatch.setattr("fuzzing.trying.limited", lambda: limited(seconds=0.2))
    (tmp_path / "a.txt").write_text("whole")
    assert tried(Case("one", "a.txt", (NOTHING,)), tmp_path).kind == kind
    assert (tmp_path / "a.txt").read_text() == "whole" and len(list(tmp_path.iterdir())) == 1


def test_a_number_means_the_same_case_whatever_the_count():
    boxes = LOADERS["boxes around errors"]
    first = numbered(boxes, 7)
    drawn._block.cache_clear()
    assert numbered(boxes, 120)[:7] == first and len(set(numbered(boxes, 120))) == 120


def test_a_process_that_dies_is_noted_and_the_next_goes_on():
    case = numbered(LOADERS["boxes around errors"], 1)[0]
    found = list(results([case, case._replace(file="no such file"), case]))
    assert [result.outcome.kind for result in found] == ["refused", "died", "refused"]


def test_limits_are_lifted_behind_them():
    with pytest.raises(Hang), limited(seconds=0.05):
        spinning()
    with limited(seconds=0.05):
        pass
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
