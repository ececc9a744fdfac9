"""Frames: `gr_frame` of suspended greenlets, and the frames that a running one sees."""

from __future__ import annotations

import sys
import traceback
from types import FrameType
from typing import Any

from behaviour import (
    Greenlet,
    arguments,
    behaviour,
    dead,
    getcurrent,
    pause,
    root,
    run,
    say,
    suspended,
)


def names(frame: FrameType | None) -> list[str]:
    """The functions of a chain of frames, innermost first."""
    found = []
    while frame is not None:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found


def own_names(frame: FrameType | None) -> list[str]:
    """The same, without the frames of behaviour.py."""
    found = names(frame)
    return found[: found.index("call")] if "call" in found else found


def outer(depth: int = 2) -> Any:
    return inner() if depth == 0 else outer(depth - 1)


def inner() -> Any:
    return root().switch()


@behaviour
def only_a_suspended_greenlet_has_a_frame() -> None:
    say(Greenlet(arguments).gr_frame, dead().gr_frame, type(suspended().gr_frame).__name__)


@behaviour
def a_running_greenlet_has_no_frame() -> None:
    say(Greenlet(lambda: getcurrent().gr_frame).switch())


@behaviour
def a_running_main_greenlet_has_no_frame() -> None:
    say(getcurrent().gr_frame)


@behaviour
def the_frame_is_the_innermost_one() -> None:
    made = suspended(outer)
    say(made.gr_frame.f_code.co_name)


@behaviour
def the_whole_chain_is_reachable() -> None:
    made = suspended(outer)
    say(names(made.gr_frame))


@behaviour
def the_outermost_frame_has_no_back() -> None:
    def body() -> None:
        root().switch()

    made = suspended(body)
    say(made.gr_frame.f_back)


@behaviour
def the_chain_is_complete_for_deep_calls() -> None:
    made = Greenlet(outer)
    made.switch(200)
    say(len(names(made.gr_frame)))


@behaviour
def the_line_is_where_it_waits() -> None:
    made = suspended(outer)
    frame = made.gr_frame
    say(frame.f_lineno - inner.__code__.co_firstlineno)
    say(frame.f_back.f_lineno - outer.__code__.co_firstlineno)


@behaviour
def locals_are_readable() -> None:
    def body() -> None:
        secret, hidden = 42, "word"
        root().switch()
        del secret, hidden

    made = suspended(body)
    say(dict(made.gr_frame.f_locals))


@behaviour
def locals_of_callers_are_readable() -> None:
    def body(value: int) -> None:
        deeper(value + 1)

    def deeper(value: int) -> None:
        root().switch()

    made = Greenlet(body)
    made.switch(7)
    frame = made.gr_frame
    say(frame.f_locals["value"], frame.f_back.f_locals["value"])


@behaviour
def the_frame_follows_the_greenlet() -> None:
    def body() -> None:
        step = 1
        root().switch()
        step = 2
        root().switch()
        del step

    made = suspended(body)
    first = made.gr_frame
    say(first.f_locals["step"])
    made.switch()
    say(made.gr_frame is first, made.gr_frame.f_locals["step"])


@behaviour
def the_frame_is_the_same_object_each_time() -> None:
    made = suspended(outer)
    say(made.gr_frame is made.gr_frame, made.gr_frame.f_back is made.gr_frame.f_back)


@behaviour
def a_kept_frame_outlives_the_greenlet() -> None:
    def body() -> None:
        root().switch()

    made = suspended(body)
    frame = made.gr_frame
    made.switch()
    say(frame.f_code.co_name, frame.f_back, made.gr_frame)


@behaviour
def a_kept_frame_of_a_deleted_greenlet_is_readable() -> None:
    def body() -> None:
        secret = 42
        root().switch()
        del secret

    made = suspended(body)
    frame = made.gr_frame
    del made
    say(frame.f_code.co_name, frame.f_back)


@behaviour
def the_frame_can_be_cleared_after_the_end_only() -> None:
    made = suspended(outer)
    frame = made.gr_frame
    try:
        frame.clear()
    except RuntimeError as error:
        say(type(error).__name__)
    made.switch()
    frame.clear()
    say(names(frame))


@behaviour
def a_greenlet_that_waits_for_its_child_has_a_frame() -> None:
    def parent() -> Any:
        me = getcurrent()
        return Greenlet(lambda: names(me.gr_frame)).switch()

    say(Greenlet(parent).switch())


@behaviour
def a_suspended_main_greenlet_has_a_frame() -> None:
    main = getcurrent()
    say(Greenlet(lambda: own_names(main.gr_frame)).switch())


@behaviour
def the_frame_of_a_greenlet_that_waits_in_a_c_function() -> None:
    def body() -> None:
        sorted([2, 1], key=lambda value: root().switch() or value)

    made = suspended(body)
    say(names(made.gr_frame))


@behaviour
def the_frame_of_a_greenlet_whose_body_is_a_c_function() -> None:
    made = Greenlet(getcurrent().switch)
    made.switch()
    say(made.gr_frame, made.dead, bool(made))


@behaviour
def the_frame_of_a_greenlet_that_waits_in_a_generator() -> None:
    def numbers() -> Any:
        root().switch()
        yield 1

    def body() -> None:
        for _ in numbers():
            pass

    made = suspended(body)
    say(names(made.gr_frame))


@behaviour
def a_running_greenlet_sees_its_own_frames_alone() -> None:
    def body() -> list[str]:
        return deeper()

    def deeper() -> list[str]:
        return names(sys._getframe())

    say(Greenlet(body).switch())


@behaviour
def the_outermost_frame_of_a_running_greenlet_has_no_back() -> None:
    def body() -> Any:
        return sys._getframe().f_back

    say(Greenlet(body).switch())


@behaviour
def there_is_no_frame_above_the_outermost() -> None:
    def body() -> str:
        try:
            sys._getframe(1)
        except ValueError as error:
            return str(error)
        return "there is"

    say(Greenlet(body).switch())


@behaviour
def a_resumed_greenlet_sees_its_own_frames_alone() -> None:
    def body() -> list[str]:
        root().switch()
        return names(sys._getframe())

    def resume(made: Any) -> Any:
        return made.switch()

    say(resume(suspended(body)))


@behaviour
def the_main_greenlet_sees_its_own_frames_after_a_switch() -> None:
    before = names(sys._getframe())
    made = suspended(outer)
    say(names(sys._getframe()) == before)
    made.switch()
    say(names(sys._getframe()) == before)


@behaviour
def extract_stack_ends_at_the_body() -> None:
    def body() -> list[str]:
        return [entry.name for entry in traceback.extract_stack()]

    say(Greenlet(body).switch())


@behaviour
def extract_stack_of_a_suspended_frame() -> None:
    made = suspended(outer)
    say([entry.name for entry in traceback.extract_stack(made.gr_frame)])


@behaviour
def the_frame_is_gone_when_resumed_and_back_when_left() -> None:
    def body() -> None:
        say("inside", getcurrent().gr_frame)
        pause()
        say("inside", getcurrent().gr_frame)
        pause()

    made = suspended(body)
    say(made.gr_frame is not None)
    made.switch()
    say(made.gr_frame is not None)
    made.switch()
    say(made.gr_frame)


@behaviour
def a_local_can_be_seen_to_change_through_a_frame() -> None:
    def body() -> int:
        value = 1
        root().switch()
        value += 1
        root().switch()
        return value

    made = suspended(body)
    frame = made.gr_frame
    seen = [frame.f_locals["value"]]
    made.switch()
    seen.append(made.gr_frame.f_locals["value"])
    say(seen, made.switch())


@behaviour
def tracing_functions_see_the_body_of_a_greenlet() -> None:
    def body() -> int:
        root().switch()
        return 1

    events: list[tuple[str, str]] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_name == "body":
            events.append((event, frame.f_code.co_name))
        return trace

    made = Greenlet(body)
    sys.settrace(trace)
    try:
        made.switch()
    finally:
        sys.settrace(None)
    say(events)


@behaviour
def profile_functions_see_calls_and_returns() -> None:
    def body() -> int:
        return inner_call() + 1

    def inner_call() -> int:
        return 1

    events: list[tuple[str, str]] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code.co_name in ("body", "inner_call"):
            events.append((event, frame.f_code.co_name))

    made = Greenlet(body)
    sys.setprofile(profile)
    try:
        made.switch()
    finally:
        sys.setprofile(None)
    say(events)


if __name__ == "__main__":
    run()
