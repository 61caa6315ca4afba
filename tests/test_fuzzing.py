"""A sample of what `benchmarks/fuzz.py` does at length: damaged files against every loader."""

import pytest
from fuzzing.cases import ALONE, Case, Step, cases, whole_files
from fuzzing.loaders import LOADERS, folder_of
from fuzzing.trying import tried
from hypothesis import given, settings

SAMPLE = 6  # files for each loader


@pytest.mark.parametrize("name", LOADERS)
def test_whole_files_are_read(name):
    """Else their damage would show nothing."""
    for file, content in whole_files(name).items():
        case = Case(name, file, (Step("written", (0, content)),))
        assert tried(case, folder_of(name)).kind == "read", file


@pytest.mark.parametrize("name", LOADERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name):
    @settings(max_examples=SAMPLE, derandomize=True, **ALONE)
    @given(cases(LOADERS[name], whole_files(name)))
    def hold(case: Case) -> None:
        outcome = tried(case, folder_of(name))
        assert outcome.right, outcome

    hold()
