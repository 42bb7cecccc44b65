"""Schedules of numbers over training."""

import pytest

from distil_nlp.objective.schedule import Schedule


def test_a_constant_ignores_progress_and_end():
    """An end value left over in a recipe must not move a constant."""
    assert [Schedule(2.0)(at) for at in (0, 0.5, 1)] == [2.0] * 3
    assert Schedule(2.0, 8.0, "constant")(1.0) == 2.0


def test_linear_goes_straight_from_start_to_end():
    """The value at the last step is the end, not one step short of it."""
    rising = Schedule(1.0, 3.0, "linear")
    assert [rising(at) for at in (0.0, 0.25, 0.5, 1.0)] == [1.0, 1.5, 2.0, 3.0]
    assert Schedule(4.0, 0.0, "linear")(0.25) == 3.0


def test_cosine_is_slow_at_both_ends():
    """Half a period: a quarter of the way takes 14.6 % of the change."""
    falling = Schedule(1.0, 0.0, "cosine")
    values = [falling(at) for at in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values == pytest.approx([1.0, 0.853553, 0.5, 0.146447, 0.0], abs=1e-6)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_progress_is_clipped(shape):
    """Training that runs past its planned steps must not extrapolate to a negative weight."""
    schedule = Schedule(1.0, 0.0, shape)
    assert (schedule(-0.5), schedule(1.5)) == (1.0, 0.0)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_change_without_an_end_is_an_error(shape):
    """It would silently stay constant."""
    with pytest.raises(ValueError, match=f"end value for the {shape} schedule"):
        Schedule(1.0, None, shape)


@pytest.mark.parametrize(
    ("schedule", "always_zero", "changes"),
    [
        (Schedule(0.0), True, False),
        (Schedule(0.0, 0.0, "linear"), True, False),
        (Schedule(0.0, 1.0, "linear"), False, True),
        (Schedule(1.0, 0.0, "cosine"), False, True),
        (Schedule(1.0), False, False),
        (Schedule(0.0, 1.0, "constant"), True, False),
        (Schedule(1.0, 1.0, "linear"), False, False),
    ],
)
def test_it_is_known_what_never_counts_and_what_changes(schedule, always_zero, changes):
    """A term that fades in from 0 must not be dropped as one that costs nothing."""
    assert (schedule.always_zero, schedule.changes) == (always_zero, changes)
