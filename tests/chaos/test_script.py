import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.script import Script, ScriptError, parse

_numbers = st.integers(0, 10_000)
_seconds = st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)
_scripts = st.builds(
    Script,
    steps=st.integers(1, 10_000),
    pause=_seconds,
    save=_numbers,
    size=_numbers,
    slow_save=_seconds,
    hold_step=_numbers,
    hold_save=_numbers,
    hold_end=st.booleans(),
    hold_stop=st.booleans(),
    nan=_numbers,
    oom=_numbers,
    crash=_numbers,
    hang=_numbers,
    crash_in_save=_numbers,
    once=st.booleans(),
)


@given(_scripts)
def test_a_script_written_out_reads_the_same(script):
    assert script == parse(str(script))


@given(st.text(max_size=60))
def test_any_other_text_is_refused_in_one_way(text):
    try:
        script = parse(text)
    except ScriptError:
        return
    assert script == parse(str(script))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no word"),
        ("pause 1", "how many steps"),
        ("steps 0", "how many steps"),
        ("steps", "steps takes one number"),
        ("steps -1", "steps takes one number"),
        ("steps 1.5", "steps takes one number"),
        ("steps 4 5", "steps takes one number"),
        ("steps 4, steps 5", "steps is said twice"),
        ("steps 4,, save 2", "'' is no word"),
        ("steps 4, once", "'once' is no word"),
        ("steps 4, hold_end", "'hold_end' is no word"),
        ("steps 4, hold-end 3", "hold-end takes no number"),
        ("steps 4, pause 1e9", "pause takes one number"),
        ("steps 4; twice", "only 'once' may"),
        ("steps 4; once; once", "only 'once' may"),
    ],
)
def test_what_is_wrong_is_named(text, complaint):
    with pytest.raises(ScriptError, match=complaint):
        parse(text)


def test_a_checkpoint_is_due_at_the_interval_and_at_the_end():
    script = parse("steps 12, save 5")

    assert [5, 10, 12] == [step for step in range(1, 13) if script.saves_at(step)]
