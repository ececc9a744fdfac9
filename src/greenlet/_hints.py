"""Notes on errors: what the message has no room for. The extension module calls this."""

import threading

from . import _get_ident, inspect
from ._greenlet import greenlet


def _place(g: greenlet) -> str:
    frames = inspect.stack(g)
    return f"{frames[-1].function}, {frames[-1].file}:{frames[-1].line}" if frames else ""


def wrong_thread(error: BaseException, g: greenlet, unstarted: greenlet | None = None) -> None:
    """For a switch to a greenlet of another thread, or of one that has ended.

    If the greenlet has not started, it is `unstarted`, and `g` is its ancestor that has.
    """
    found = inspect.describe(g)
    # Not threading.current_thread(), which makes an object for a thread that it does not know.
    here = inspect._thread_name(_get_ident(), threading.get_native_id())
    if found.state == "abandoned":
        error.add_note(
            f"Greenlet {found.name}: its thread has ended, so it never runs again. "
            f"This is thread {here}."
        )
        return
    if found.thread is None:
        return  # the greenlet has finished since the error was raised
    if unstarted is not None:
        error.add_note(
            f"Greenlet {inspect.get_name(unstarted)} has not started. It would start in the thread"
            f" of its parent, {found.thread_name}; this is thread {here}."
            "\nTo start it here, set its parent to a greenlet of this thread:"
            " g.parent = getcurrent()."
        )
        return
    where, verb = _place(g), "runs" if found.state == "running" else "waits"
    error.add_note(
        f"Greenlet {found.name} belongs to thread {found.thread_name}; this is thread {here}."
        + (f"\nIt {verb} at {where}." if where else "")
        + "\nA greenlet runs only in the thread that it has started in. Ask that thread to"
        " switch to it: by a queue, or by a call that its event loop allows from other threads."
    )


def nothing_to_run(error: BaseException, g: greenlet) -> None:
    """For the start of a greenlet whose run raises AttributeError."""
    # Not by a generator expression: it is a function, and 3.12 and 3.13 crash where there is no
    # memory for one.
    for cls in type(g).__mro__:
        if cls is not greenlet and "run" in vars(cls):
            return  # its class has one, which raises
    made = inspect.describe(g).origin
    error.add_note(
        f"This {type(g).__qualname__} has nothing to run: pass a callable when it is made, set its"
        " attribute run, or define the method run() in its class."
        + (f"\nIt was made at {made[-1].file}:{made[-1].line}." if made else "")
    )


def cyclic_parents(error: BaseException, g: greenlet, parent: greenlet) -> None:
    """For a parent that descends from the greenlet."""
    names: list[str] = []
    one = parent
    while one is not None and one is not g and len(names) < 10:
        names.append(inspect.get_name(one))
        one = inspect._parent(one)  # type: ignore[assignment]
    names.append("…" if one is not g else inspect.get_name(g))
    error.add_note(f"From child to parent, there is already: {' → '.join(names)}.")


def killed(error: BaseException, g: greenlet) -> None:
    """For an exception other than GreenletExit that leaves a greenlet which was killed."""
    error.add_note(
        f"Raised in greenlet {inspect.get_name(g)}, in which GreenletExit was raised because"
        " nothing refers to it any more, or because its thread ends."
    )
