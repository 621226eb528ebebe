"""What is made of two evaluations has a name of its own."""

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from multifaceted.evaluation.finished import name_of

PATHS = st.text("ab_-./ é", min_size=1).map(Path)


@given(PATHS, PATHS, PATHS, PATHS)
@example(Path("e"), Path("../runs/a"), Path("e"), Path("runs-a"))
@example(Path("e_f"), Path("a"), Path("e"), Path("f_a"))
def test_other_evaluations_have_another_place(first, second, other_first, other_second):
    same = (first.name, second) == (other_first.name, other_second)
    assert (name_of("compare", first, second) == name_of("compare", other_first, other_second)) == same
    assert name_of("compare", first, second) != name_of("agreement", first, second)


def test_a_name_is_readable_and_fits_a_file_system():
    assert name_of("compare", Path("runs/rubric"), Path("../b/rubric")).startswith("compare_rubric_b-rubric_")
    assert len(name_of("compare", Path("e"), Path("long/" * 200))) < 120
