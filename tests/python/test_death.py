"""How greenlets end: by GreenletExit, or when the last reference goes, in any thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator

import pytest
from greenlet import GreenletExit, error, getcurrent, greenlet
from helpers import FREE_THREADED, Unraisable, collect, in_thread, run_script, to_parent


def waiting(log: list[str], name: str = "finally") -> greenlet:
    """A suspended greenlet that writes `name` into log when it is unwound."""

    def run() -> None:
        try:
            to_parent()
        finally:
            log.append(name)

    g = greenlet(run)
    g.switch()
    return g


def test_losing_the_last_reference_runs_the_finally_blocks() -> None:
    log: list[str] = []
    g = waiting(log)
    assert log == []
    del g
    collect()
    assert log == ["finally"]


def test_losing_the_last_reference_raises_greenlet_exit_in_the_greenlet() -> None:
    log: list[BaseException] = []

    def run() -> None:
        try:
            to_parent()
        except BaseException as caught:
            log.append(caught)
            raise

    g = greenlet(run)
    g.switch()
    del g
    collect()
    assert [type(caught) for caught in log] == [GreenletExit]


def test_losing_the_last_reference_is_seen_at_once_without_a_collection() -> None:
    log: list[str] = []
    g = waiting(log)
    del g
    assert log == ["finally"]


def test_the_greenlet_that_drops_the_last_reference_goes_on_where_it_was() -> None:
    log: list[str] = []
    holder = [waiting(log)]
    holder.clear()
    log.append("next statement")
    assert log == ["finally", "next statement"]


def test_a_greenlet_that_drops_another_continues_where_it_was() -> None:
    log: list[str] = []

    def dropper() -> str:
        holder = [waiting(log)]
        holder.clear()
        log.append("dropper goes on")
        return "dropper done"

    assert greenlet(dropper).switch() == "dropper done"
    assert log == ["finally", "dropper goes on"]


def test_the_dropper_is_the_parent_while_the_dropped_greenlet_dies() -> None:
    main = getcurrent()
    parents: list[object] = []

    def run() -> None:
        try:
            main.switch()
        finally:
            parents.append(getcurrent().parent)

    def dropper() -> None:
        g = greenlet(run, main)
        g.switch()
        del g

    dropping = greenlet(dropper)
    dropping.switch()
    assert parents == []
    dropping.switch()
    assert dropping.dead
    assert parents == [dropping]


def test_a_new_greenlet_is_dropped_without_being_run() -> None:
    log: list[str] = []
    g = greenlet(lambda: log.append("ran"))
    alive = weakref.ref(g)
    del g
    collect()
    assert alive() is None
    assert log == []


def test_a_finished_greenlet_is_dropped_silently() -> None:
    with Unraisable() as unraisable:
        g = greenlet(lambda: None)
        g.switch()
        alive = weakref.ref(g)
        del g
        collect()
    assert alive() is None
    assert unraisable.types == []


def test_greenlet_exit_that_escapes_a_dropped_greenlet_is_silent() -> None:
    log: list[str] = []
    with Unraisable() as unraisable:
        g = waiting(log)
        del g
        collect()
    assert log == ["finally"]
    assert unraisable.types == []


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_another_exception_that_escapes_a_dropped_greenlet_goes_to_unraisablehook(
    kind: type[BaseException],
) -> None:
    def run() -> None:
        try:
            to_parent()
        except GreenletExit:
            raise kind("while dying") from None

    with Unraisable() as unraisable:
        g = greenlet(run)
        g.switch()
        del g
        collect()
    assert unraisable.types == [kind]
    assert unraisable.messages == ["while dying"]


def test_dropping_leaves_the_exception_under_way_alone() -> None:
    log: list[str] = []
    holder = [waiting(log)]
    try:
        raise ValueError("under way")
    except ValueError as under_way:
        holder.clear()
        assert log == ["finally"]
        assert str(under_way) == "under way"
    with pytest.raises(LookupError, match="propagating"):
        dropped_while_propagating(log)
    assert log == ["finally", "local"]


def dropped_while_propagating(log: list[str]) -> None:
    local = waiting(log, "local")
    assert local
    raise LookupError("propagating")


def test_an_exception_that_c_code_raises_while_it_drops_a_greenlet_is_not_lost() -> None:
    log: list[str] = []

    def items() -> Iterator[greenlet]:
        yield waiting(log)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(items())  # drops the list when the exception is set
    assert log == ["finally"]


def test_a_greenlet_that_survives_its_end_has_the_parent_that_it_had() -> None:
    main = getcurrent()
    parents: list[greenlet | None] = []
    survivors: list[greenlet] = []

    def run() -> None:
        try:
            main.switch()
        except GreenletExit:
            survivors.append(getcurrent())
            parents.append(getcurrent().parent)
            main.switch()

    parent = greenlet(lambda value=None: main.switch("the parent goes on"))
    g = greenlet(run, parent)
    g.switch()
    del g
    assert parents == [main]
    assert survivors[0].parent is parent
    assert survivors.pop().switch() == "the parent goes on"


def test_a_greenlet_that_stores_a_new_reference_to_itself_lives_on() -> None:
    survivors: list[greenlet] = []

    def run() -> str:
        try:
            to_parent()
        except GreenletExit:
            survivors.append(getcurrent())
        return str(to_parent("still here"))

    g = greenlet(run)
    g.switch()
    del g
    collect()
    assert len(survivors) == 1
    assert survivors[0]
    assert not survivors[0].dead
    assert survivors[0].switch("finished") == "finished"
    assert survivors[0].dead


def test_a_greenlet_may_refuse_to_die_again_and_again() -> None:
    refused: list[int] = []
    survivors: list[greenlet] = []

    def run() -> None:
        for attempt in range(3):
            try:
                to_parent()
            except GreenletExit:
                refused.append(attempt)
                survivors.append(getcurrent())
        to_parent()

    g = greenlet(run)
    g.switch()
    del g
    for attempt in range(3):
        assert refused == list(range(attempt + 1))
        survivors.clear()
        collect()
    assert refused == [0, 1, 2]
    assert survivors == []


def test_a_greenlet_that_refuses_without_a_reference_harms_nobody() -> None:
    outcome = run_script(
        """
        import gc
        from greenlet import GreenletExit, getcurrent, greenlet

        def refusing():
            while True:
                try:
                    getcurrent().parent.switch()
                except GreenletExit:
                    pass

        for _ in range(100):
            g = greenlet(refusing)
            g.switch()
            del g
            gc.collect()
        print("went on")
        """
    )
    # The contract does not say whether stderr reports the refusal.
    assert (outcome.returncode, outcome.stdout) == (0, "went on\n"), outcome.stderr


def test_greenlet_exit_thrown_by_hand_ends_a_greenlet_like_a_drop() -> None:
    log: list[str] = []
    g = waiting(log)
    assert isinstance(g.throw(), GreenletExit)
    assert log == ["finally"]
    assert g.dead
    del g
    collect()
    assert log == ["finally"]


def test_locals_are_released_when_a_greenlet_ends() -> None:
    class Local:
        pass

    alive: list[weakref.ref[Local]] = []

    def run() -> None:
        local = Local()
        alive.append(weakref.ref(local))
        to_parent()

    for end in (lambda g: g.switch(), lambda g: g.throw(), lambda g: None):
        g = greenlet(run)
        g.switch()
        assert alive[-1]() is not None
        end(g)
        del g
        collect()
        assert alive[-1]() is None


def test_the_argument_and_the_result_are_not_kept_by_a_finished_greenlet() -> None:
    class Value:
        pass

    g = greenlet(lambda value: value)
    value = Value()
    alive = weakref.ref(value)
    assert g.switch(value) is value
    del value
    collect()
    assert alive() is None


def test_dropping_a_chain_ends_each_greenlet_once() -> None:
    log: list[str] = []

    def run(name: str, held: greenlet | None) -> None:
        try:
            to_parent()
        finally:
            log.append(name)
            del held

    chain: greenlet | None = None
    for index in range(20):
        g = greenlet(run)
        g.switch(str(index), chain)
        chain = g
        del g
    del chain
    collect()
    assert sorted(log, key=int) == [str(index) for index in range(20)]


def test_dropping_children_and_parents_in_any_order_ends_them_all() -> None:
    log: list[str] = []

    def run(name: str) -> None:
        try:
            main.switch()
        finally:
            log.append(name)

    main = getcurrent()
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        top = greenlet(run)
        middle = greenlet(run, top)
        bottom = greenlet(run, middle)
        family = [top, middle, bottom]
        del top, middle, bottom
        for index, member in enumerate(family):
            member.switch(str(index))
        del member
        for index in order:
            family[index] = main
            collect()
        collect()
    assert sorted(log) == sorted("012" * 3)


def test_a_dying_greenlet_may_create_and_run_others() -> None:
    log: list[object] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            log.append(greenlet(lambda: "ran while dying").switch())

    g = greenlet(run)
    g.switch()
    del g
    collect()
    assert log == ["ran while dying"]


def test_del_of_a_local_runs_once_when_its_greenlet_is_dropped() -> None:
    log: list[str] = []

    class Local:
        def __del__(self) -> None:
            log.append("del")

    def run() -> None:
        local = Local()
        to_parent()
        del local

    g = greenlet(run)
    g.switch()
    del g
    collect()
    assert log == ["del"]


def test_a_del_that_switches_is_allowed() -> None:
    log: list[object] = []

    class Switching:
        def __del__(self) -> None:
            log.append(greenlet(lambda: "switched in del").switch())

    thing = Switching()
    del thing
    collect()
    assert log == ["switched in del"]


def test_a_del_inside_a_greenlet_may_switch_away() -> None:
    main = getcurrent()
    log: list[str] = []

    class Leaving:
        def __del__(self) -> None:
            log.append("leaving")
            main.switch("from del")
            log.append("back")

    def run() -> str:
        thing = Leaving()
        del thing
        return "done"

    g = greenlet(run)
    assert g.switch() == "from del"
    assert g.switch() == "done"
    assert log == ["leaving", "back"]


def test_a_greenlet_dropped_by_another_thread_dies_in_its_own_thread_at_its_next_switch() -> None:
    log: list[tuple[str, int]] = []
    holder: list[greenlet] = []
    made, dropped = threading.Event(), threading.Event()

    def run() -> None:
        try:
            to_parent()
        finally:
            log.append(("finally", threading.get_ident()))

    def owner() -> None:
        g = greenlet(run)
        other = greenlet(lambda: to_parent())
        g.switch()
        other.switch()
        holder.append(g)
        del g
        made.set()
        dropped.wait()
        other.switch()
        log.append(("after the switch", threading.get_ident()))

    thread = threading.Thread(target=owner, daemon=True)
    thread.start()
    owner_ident = thread.ident
    assert owner_ident is not None
    made.wait()
    holder.clear()
    collect()
    # Free-threaded builds may hand the last reference to the owning thread, which drops it at once.
    assert log == [] or FREE_THREADED
    dropped.set()
    thread.join()
    assert log == [("finally", owner_ident), ("after the switch", owner_ident)]


def test_a_greenlet_dropped_by_another_thread_dies_at_getcurrent_of_its_own() -> None:
    log: list[str] = []
    holder: list[greenlet] = []
    made, dropped = threading.Event(), threading.Event()

    def owner() -> None:
        holder.append(waiting(log))
        made.set()
        dropped.wait()
        getcurrent()
        log.append("after getcurrent")

    thread = threading.Thread(target=owner)
    thread.start()
    made.wait()
    holder.clear()
    dropped.set()
    thread.join()
    assert log == ["finally", "after getcurrent"]


def test_many_greenlets_dropped_by_other_threads_all_die_in_their_own() -> None:
    log: list[str] = []
    holder: list[greenlet] = []
    made, dropped = threading.Event(), threading.Event()

    def owner() -> None:
        holder.extend(waiting(log) for _ in range(500))
        made.set()
        dropped.wait()
        greenlet(lambda: None).switch()

    thread = threading.Thread(target=owner)
    thread.start()
    made.wait()
    holder.clear()
    dropped.set()
    thread.join()
    assert log == ["finally"] * 500


def test_pending_cleanups_are_counted_until_the_owner_does_them() -> None:
    from greenlet import _greenlet

    log: list[str] = []
    holder = [waiting(log)]
    assert _greenlet.get_pending_cleanup_count() == 0
    in_thread(holder.clear)
    # Free-threaded interpreters themselves hand an object back to its thread.
    assert _greenlet.get_pending_cleanup_count() == (0 if FREE_THREADED else 1)
    getcurrent()
    assert _greenlet.get_pending_cleanup_count() == 0
    assert log == ["finally"]


@pytest.mark.parametrize(
    "make", [greenlet, lambda: greenlet.__new__(greenlet), type("Sub", (greenlet,), {})]
)
def test_making_a_greenlet_ends_those_that_other_threads_dropped(
    make: Callable[[], greenlet],
) -> None:
    log: list[str] = []
    holder = [waiting(log)]
    in_thread(holder.clear)
    made = make()
    assert log == ["finally"]
    assert made.parent is getcurrent()


def test_a_greenlet_dropped_by_another_thread_may_refuse_to_die() -> None:
    survivors: list[greenlet] = []

    def run() -> None:
        try:
            to_parent()
        except GreenletExit:
            survivors.append(getcurrent())
            to_parent()

    g = greenlet(run)
    g.switch()
    holder = [g]
    del g
    in_thread(holder.clear)
    getcurrent()
    assert len(survivors) == 1
    survivors[0].switch()
    assert survivors[0].dead


def test_the_greenlets_of_an_ended_thread_are_dead() -> None:
    def leave_behind() -> list[greenlet]:
        suspended = greenlet(lambda: to_parent())
        suspended.switch()
        return [getcurrent(), suspended]

    main_of_thread, suspended = in_thread(leave_behind)
    assert main_of_thread.dead
    assert suspended.dead
    assert not suspended
    assert suspended.gr_frame is None
    assert " dead" in repr(suspended)
    with pytest.raises(error):
        suspended.switch()


def test_an_unhandled_exception_in_a_finally_block_of_a_dropped_greenlet_has_context() -> None:
    contexts: list[BaseException | None] = []

    def run() -> None:
        try:
            to_parent()
        finally:
            try:
                raise ValueError("second")
            except ValueError as second:
                contexts.append(second.__context__)

    g = greenlet(run)
    g.switch()
    del g
    collect()
    assert [type(context) for context in contexts] == [GreenletExit]
