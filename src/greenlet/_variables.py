"""Local variables of frames as text, for ``greenlet.inspect``."""

import sys
from contextlib import suppress
from types import FrameType

from ._view import FrameView


def has_gil() -> bool:
    """Whether no other thread runs while this one looks at a frame."""
    return sys.version_info < (3, 13) or sys._is_gil_enabled()


_LONGEST = 200  # characters of a value


def _repr(value: object) -> str:
    try:
        return str.__str__(repr(value))
    except Exception as failure:
        return f"<repr() raised {type(failure).__name__}>"


def _locals_of(frame: FrameType) -> list[tuple[str, object]]:
    # exec() takes any mapping as the variables, with any keys.
    with suppress(Exception):
        items = [*frame.f_locals.items()]
        return [(name if type(name) is str else _repr(name), value) for name, value in items]
    return []


def of_frames(frame: FrameType | None) -> tuple[FrameView, ...]:
    """The frames from this one outwards, with their variables, the outermost first."""
    found = []
    while frame is not None:
        texts = []
        for name, value in _locals_of(frame):
            text = _repr(value)
            texts.append((name, text if len(text) <= _LONGEST else text[:_LONGEST] + "…"))
        code = frame.f_code
        found.append(FrameView(code.co_qualname, code.co_filename, frame.f_lineno or 0, (*texts,)))
        frame = frame.f_back
    return tuple(reversed(found))
