"""What gr_frame shows of a suspended greenlet, and tracebacks across switches."""

from __future__ import annotations

import gc
import inspect
import sys
import traceback
from types import FrameType, TracebackType
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from helpers import in_thread, to_parent


def chain(frame: FrameType | None) -> list[str]:
    """Names of a frame and its callers, innermost first."""
    names = []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names


def outermost() -> Any:
    below = "outermost"
    return middle(below)


def middle(argument: str) -> Any:
    below = argument + ", middle"
    return innermost(below)


def innermost(argument: str) -> Any:
    local = argument + ", innermost"
    parent = getcurrent().parent
    assert parent is not None
    received = parent.switch(local)
    del parent
    return received, local


def suspended() -> greenlet:
    g = greenlet(outermost)
    assert g.switch() == "outermost, middle, innermost"
    return g


def frame_of(g: greenlet) -> FrameType:
    frame = g.gr_frame
    assert frame is not None
    return frame


def traceback_names(step: TracebackType | None) -> list[str]:
    names = []
    while step is not None:
        names.append(step.tb_frame.f_code.co_name)
        step = step.tb_next
    return names


def test_only_a_suspended_greenlet_has_a_frame() -> None:
    main = getcurrent()
    g = greenlet(lambda: (getcurrent().gr_frame, main.switch())[0])
    assert g.gr_frame is None
    g.switch()
    assert isinstance(g.gr_frame, FrameType)
    assert g.switch() is None
    assert g.gr_frame is None


def test_the_frame_is_the_innermost_one_and_its_callers_follow() -> None:
    assert chain(suspended().gr_frame) == ["innermost", "middle", "outermost"]


def test_the_chain_of_frames_ends_with_the_greenlet() -> None:
    g = suspended()
    outer = frame_of(g).f_back
    assert outer is not None
    assert outer.f_back is not None
    assert outer.f_back.f_back is None


def test_the_running_main_greenlet_has_no_frame_and_a_waiting_one_has() -> None:
    main = getcurrent()
    assert main.gr_frame is None
    names = greenlet(lambda: chain(main.gr_frame)).switch()
    here = inspect.currentframe()
    assert here is not None
    assert names[0] == here.f_code.co_name
    assert len(names) == len(inspect.stack())


def test_locals_of_every_suspended_frame_are_readable() -> None:
    frame = frame_of(suspended())
    assert frame.f_locals["local"] == "outermost, middle, innermost"
    assert frame.f_back is not None
    assert frame.f_back.f_locals == {"argument": "outermost", "below": "outermost, middle"}
    assert frame.f_back.f_back is not None
    assert frame.f_back.f_back.f_locals == {"below": "outermost"}


def test_line_numbers_of_suspended_frames_are_right() -> None:
    frame: FrameType | None = suspended().gr_frame
    for function in (innermost, middle, outermost):
        assert frame is not None
        lines, first = inspect.getsourcelines(function)
        text = lines[frame.f_lineno - first]
        assert "switch(" in text or "return" in text
        frame = frame.f_back


def test_reading_the_frames_does_not_disturb_the_greenlet() -> None:
    g = suspended()
    frame: FrameType | None = g.gr_frame
    while frame is not None:
        repr(frame)
        dict(frame.f_locals)
        frame = frame.f_back
    assert g.switch("value") == ("value", "outermost, middle, innermost")


def test_a_frame_is_the_same_object_at_each_reading_while_the_greenlet_waits() -> None:
    g = suspended()
    assert g.gr_frame is g.gr_frame


def test_frames_outlive_their_greenlet() -> None:
    g = suspended()
    frame = frame_of(g)
    g.switch()
    assert g.dead
    assert frame.f_code.co_name == "innermost"
    assert frame.f_locals["received"] == ()
    assert frame.f_locals["local"] == "outermost, middle, innermost"


def test_frames_of_a_dropped_greenlet_stay_readable() -> None:
    g = suspended()
    frame = frame_of(g)
    del g
    assert frame.f_locals["local"] == "outermost, middle, innermost"


def test_a_suspended_frame_cannot_be_cleared() -> None:
    g = suspended()
    with pytest.raises(RuntimeError):
        frame_of(g).clear()
    assert g.switch(1) == (1, "outermost, middle, innermost")


def test_a_frame_taken_before_a_resume_follows_the_greenlet() -> None:
    main = getcurrent()

    def run() -> None:
        step = 1
        main.switch()
        step = 2
        main.switch()
        del step

    g = greenlet(run)
    g.switch()
    frame = frame_of(g)
    assert frame.f_locals["step"] == 1
    g.switch()
    assert g.gr_frame is frame
    assert frame.f_locals["step"] == 2


def test_a_frame_that_runs_is_linked_only_to_frames_of_its_own_greenlet() -> None:
    seen = greenlet(lambda: chain(sys._getframe())).switch()
    assert seen == ["<lambda>"]


def test_frames_of_a_greenlet_start_anew_and_do_not_reach_into_the_parent() -> None:
    def nested() -> list[str]:
        names: list[str] = greenlet(lambda: chain(sys._getframe())).switch()
        return names

    assert greenlet(nested).switch() == ["<lambda>"]


def test_getframe_does_not_look_beyond_the_outermost_frame_of_the_greenlet() -> None:
    def run() -> None:
        sys._getframe(1)

    with pytest.raises(ValueError, match="call stack is not deep enough"):
        greenlet(run).switch()


def test_frames_below_c_callers_are_linked() -> None:
    main = getcurrent()

    def key(item: int) -> int:
        main.switch()
        return item

    def run() -> list[int]:
        return sorted([2, 1], key=key)

    g = greenlet(run)
    g.switch()
    assert chain(g.gr_frame) == ["key", "run"]
    g.switch()
    assert chain(g.gr_frame) == ["key", "run"]
    assert g.switch() == [1, 2]


def test_frames_of_generators_are_linked() -> None:
    main = getcurrent()

    def inner() -> Any:
        yield main.switch()

    def outer() -> Any:
        yield from inner()

    def run() -> list[Any]:
        return [*outer()]

    g = greenlet(run)
    g.switch()
    assert chain(g.gr_frame) == ["inner", "outer", "run"]
    assert g.switch(1) == [1]


def test_frames_of_class_bodies_and_comprehensions_are_linked() -> None:
    main = getcurrent()

    def run() -> Any:
        class Body:
            value = tuple([main.switch() for _ in range(1)])

        return Body.value

    g = greenlet(run)
    g.switch()
    names = [name for name in chain(g.gr_frame) if name != "<listcomp>"]
    assert names == ["Body", "run"]
    assert g.switch(1) == (1,)


def test_the_frame_of_a_greenlet_that_waits_below_a_c_function_alone_is_none() -> None:
    main = getcurrent()
    g = greenlet(main.switch)
    g.switch()
    assert g
    assert g.gr_frame is None
    assert g.switch("end") == "end"


def test_a_traceback_from_a_child_ends_in_the_frames_of_the_child() -> None:
    def failing() -> None:
        raise LookupError

    def run() -> None:
        failing()

    with pytest.raises(LookupError) as caught:
        greenlet(run).switch()
    assert traceback_names(caught.value.__traceback__)[-2:] == ["run", "failing"]


def test_a_traceback_across_three_greenlets_names_every_frame_once() -> None:
    def bottom() -> None:
        raise LookupError

    def middle_body() -> None:
        greenlet(bottom).switch()

    def top() -> None:
        greenlet(middle_body).switch()

    with pytest.raises(LookupError) as caught:
        greenlet(top).switch()
    assert traceback_names(caught.value.__traceback__)[1:] == ["top", "middle_body", "bottom"]


def test_the_stack_of_a_suspended_greenlet_can_be_printed() -> None:
    g = suspended()
    text = "".join(traceback.format_stack(g.gr_frame))
    assert "in outermost" in text
    assert "in middle" in text
    assert "in innermost" in text
    assert text.index("in outermost") < text.index("in innermost")


def test_a_stack_extracted_inside_a_greenlet_holds_its_own_frames_only() -> None:
    def run() -> list[str]:
        return [entry.name for entry in traceback.extract_stack()]

    assert greenlet(run).switch() == ["run"]


def test_writing_a_local_through_a_suspended_frame_is_seen_where_python_promises_it() -> None:
    # PEP 667: since 3.13 f_locals of a function is a write-through proxy.
    g = suspended()
    frame = frame_of(g)
    frame.f_locals["local"] = "written"
    expected = "written" if sys.version_info >= (3, 13) else "outermost, middle, innermost"
    assert g.switch("value") == ("value", expected)


def test_the_frame_chains_of_a_thousand_greenlets_are_walked() -> None:
    family = [suspended() for _ in range(1_000)]
    for g in family:
        assert chain(g.gr_frame) == ["innermost", "middle", "outermost"]


def test_the_frame_chain_of_a_deep_greenlet_is_complete() -> None:
    main = getcurrent()

    def deep(level: int) -> None:
        if level:
            deep(level - 1)
        else:
            main.switch()

    g = greenlet(deep)
    g.switch(500)
    assert chain(g.gr_frame) == ["deep"] * 501
    g.switch()
    assert g.dead


def test_the_frame_of_another_threads_greenlet_can_be_read() -> None:
    g = suspended()
    assert in_thread(lambda: chain(g.gr_frame)) == ["innermost", "middle", "outermost"]
    assert in_thread(lambda: dict(frame_of(g).f_locals)["argument"]) == "outermost, middle"


def test_no_finalizer_runs_on_top_of_the_frames_that_are_read() -> None:
    callers: list[str] = []

    class InACycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            callers.extend(chain(inspect.currentframe()))

    def waiting() -> None:
        to_parent()

    g = greenlet(waiting)
    g.switch()
    gc.collect()
    gc.disable()
    thresholds = gc.get_threshold()
    try:
        InACycle()
        gc.set_threshold(1)
        gc.enable()
        frame = g.gr_frame  # on 3.11 an allocation may collect at once
        gc.collect()
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    assert frame is not None
    assert "__del__" in callers
    assert "waiting" not in callers
