"""The time that is left, of work and of what is still to be compiled."""

import io

import pytest

from sbjax.training.progress import Progress


def test_later_arms_compile_too():
    """Three arms of 100 units: 2 s a unit, 30 s of compiling each."""
    progress = Progress(300.0, programs=3, stream=io.StringIO())
    progress.compiling(10.0)  # the initial state
    progress.add(1.0, 20.0, compiled=True, label="a")
    progress.add(99.0, 198.0, compiled=False, label="a")
    assert progress.seconds_left() == pytest.approx(2 * 200 + 2 * 30)
    progress.compiling(0.0)
    progress.add(1.0, 40.0, compiled=True, label="b")  # the mean of the two is 35
    assert progress.seconds_left() == pytest.approx(2 * 199 + 35)


def test_what_was_done_before_is_not_compiled():
    progress = Progress(300.0, programs=3, stream=io.StringIO())
    progress.skip(100.0, programs=1)
    progress.add(1.0, 30.0, compiled=True, label="b")
    progress.add(99.0, 99.0, compiled=False, label="b")
    assert progress.seconds_left() == pytest.approx(100 + 30)
    progress.add(1.0, 30.0, compiled=True, label="c")
    progress.add(99.0, 99.0, compiled=False, label="c")
    assert progress.seconds_left() == 0


def test_nothing_is_said_before_a_step_was_timed():
    stream = io.StringIO()
    progress = Progress(10.0, programs=2, stream=stream, interval=0.0)
    progress.add(1.0, 5.0, compiled=True, label="a")
    assert "left --" in stream.getvalue()
    progress.add(1.0, 1.0, compiled=False, label="a")
    assert stream.getvalue().endswith("left 0:13\n")


def test_a_program_of_which_nothing_is_counted_has_a_line():
    """Where jax has no CPU client, only products are counted: an own network without any has a work of 0."""
    stream = io.StringIO()
    progress = Progress(0.0, programs=1, stream=stream, interval=0.0)
    progress.show("a: compiling")
    progress.add(0.0, 1.0, compiled=False, label="a")
    assert stream.getvalue().count("  0 %  ") == 2
    assert "left --" in stream.getvalue()


def test_steps_that_took_no_time_and_more_than_all_of_them():
    stream = io.StringIO()
    progress = Progress(10.0, stream=stream, interval=0.0)
    progress.add(5.0, 0.0, compiled=False, label="a")  # a clock that is too coarse
    assert progress.seconds_left() == 0
    progress.add(5.0 + 1e-9, 0.0, compiled=False, label="a")
    assert "100 %" in stream.getvalue().splitlines()[-1]
