"""The JVM, by JPype: Java calls, exceptions, recursion to the end, and calls back into Python."""

from __future__ import annotations

import faulthandler

import jpype
from engine_calls import check, finish, in_greenlet, refused

faulthandler.disable()  # HotSpot uses SIGSEGV for safepoints and null pointers
jpype.startJVM()


def text() -> str:
    return str(jpype.java.lang.StringBuilder("java in a greenlet").reverse())


def caught() -> str:
    try:
        jpype.java.lang.Integer.parseInt("no number")
    except jpype.java.lang.NumberFormatException as error:
        return str(error.getMessage())
    return "none"


def sorted_by_python() -> list[str]:
    words = jpype.java.util.ArrayList(["pear", "fig", "banana"])
    by_length = jpype.JProxy("java.util.Comparator", {"compare": lambda a, b: len(a) - len(b)})
    words.sort(by_length)
    return [str(word) for word in words]


def callback_that_switches() -> str:
    seen: list[str] = []
    accept = {"accept": lambda each: seen.append(refused())}
    jpype.java.util.ArrayList(["one"]).forEach(jpype.JProxy("java.util.function.Consumer", accept))
    return seen[0]


def overflow() -> str:
    # The hash code of a list that contains itself recurses without end.
    endless = jpype.java.util.ArrayList()
    endless.add(endless)
    try:
        endless.hashCode()
    except jpype.java.lang.StackOverflowError:
        return "StackOverflowError"
    return "no error"


check("text", text, threads=True)
check("exception", caught, threads=True)
check("callbacks", sorted_by_python, threads=True)
check("overflow", overflow)
check("collection", lambda: jpype.java.lang.System.gc() or "done", threads=True)
assert "cannot switch" in in_greenlet(callback_that_switches)
finish("the JVM works in greenlets")
