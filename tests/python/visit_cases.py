"""Shapes of code in which a greenlet may be left: as text, for exact_visits.py.

Each shape is a text with holes, `_`. In turn each hole becomes a call that leaves for the main
greenlet, while fresh instances of a probe class fill the others; or expressions are put into the
holes of others at random. What leaves without a hole (an operator method, a finalizer, ...) is
called W here. HELPERS is executed in the namespace of each shape, so it is as cold as the shape.
"""

from __future__ import annotations

import random
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import NamedTuple

VERSION = sys.version_info[:2]

# `Probe` (the class that is looked for), `switch` (of the main greenlet) and the modules are given.
HELPERS = '''
class P(Probe):
    """A probe for everything: each operation brings another one."""

    def m(self, *args, **kwargs):
        return [args, kwargs, P()]

    @classmethod
    def cm(cls, *args):
        return [args, P()]

    @staticmethod
    def sm(*args):
        return [args, P()]

    def __repr__(self):
        return "P"

    def __format__(self, spec):
        return "P" + spec

    def __call__(self, *args, **kwargs):
        return [args, kwargs, P()]

    def __getitem__(self, key):
        return [key, P()]

    def __setitem__(self, key, value):
        self.item = key, value

    def __delitem__(self, key):
        self.item = key

    def __iter__(self):
        yield P()
        yield P()

    def __len__(self):
        return 2

    def __bool__(self):
        return True

    def __lt__(self, other):
        return P()

    def __contains__(self, other):
        return True

    def __index__(self):
        return 1

    def __enter__(self):
        return P()

    def __exit__(self, *args):
        return True

    def __neg__(self):
        return P()

    __pos__ = __invert__ = __neg__

    def __await__(self):
        yield P()
        return P()


def binary(self, other):
    return P()


OPERATORS = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
for name in OPERATORS:
    setattr(P, f"__{name}__", binary)


def w(*args, **kwargs):
    """Leaves for the main greenlet."""
    switch()
    return P()


s = switch  # leaves without a Python function


def keep(*args, **kwargs):
    return [args, kwargs]


def one(x):
    return [x]


def default(x, y=1, *, z=2):
    return [x, y, z]


def make(x):
    def inner(y):
        return [x, y]

    return inner


def g(*values):
    for value in values:
        yield value


def gw(*values):
    for value in values:
        yield value
        w()


async def co(*values):
    return [values, await P()]


async def cow(*values):
    return [values, w(), await P()]


async def ag(*values):
    for value in values:
        await P()
        yield value


async def agw(*values):
    for value in values:
        w()
        yield value


def drive(coroutine):
    """Runs a coroutine to its end."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value


class C:
    def __init__(self, *args, **kwargs):
        self.held = args, kwargs

    def __repr__(self):
        return "C" + repr(self.held)


class Q(P):
    def __init__(self, x):
        self.x = x


class N:
    def __new__(cls, *args):
        self = super().__new__(cls)
        self.held = args
        return self

    def __repr__(self):
        return "N" + repr(self.held)


class Meta(type):
    def __new__(mcs, name, bases, namespace, **kwargs):
        w()
        return super().__new__(mcs, name, bases, namespace)

    def __init__(cls, name, bases, namespace, **kwargs):
        super().__init__(name, bases, namespace)

    @classmethod
    def __prepare__(mcs, name, bases, **kwargs):
        return {"prepared": w()}


class W(P):
    """Leaves in each of its methods."""

    def __repr__(self):
        w()
        return "W"

    def __str__(self):
        w()
        return "W"

    def __format__(self, spec):
        w()
        return "W"

    def __call__(self, *args, **kwargs):
        w()
        return [args, kwargs]

    def __getitem__(self, key):
        w()
        return [key]

    def __setitem__(self, key, value):
        w()

    def __delitem__(self, key):
        w()

    def __iter__(self):
        w()
        return self

    count = 0

    def __next__(self):
        w()
        self.count += 1
        if self.count > 2:
            raise StopIteration
        return P()

    def __len__(self):
        w()
        return 2

    def __bool__(self):
        w()
        return True

    def __hash__(self):
        w()
        return 1

    def __eq__(self, other):
        w()
        return True

    def __lt__(self, other):
        w()
        return True

    def __contains__(self, other):
        w()
        return True

    def __index__(self):
        w()
        return 1

    def __enter__(self):
        w()
        return P()

    def __exit__(self, *args):
        w()
        return True

    def __neg__(self):
        w()
        return P()

    def __await__(self):
        w()
        yield P()
        w()
        return P()

    async def __aenter__(self):
        w()
        return P()

    async def __aexit__(self, *args):
        w()
        return True

    def __aiter__(self):
        w()
        return self

    async def __anext__(self):
        w()
        self.count += 1
        if self.count > 2:
            raise StopAsyncIteration
        return P()

    @property
    def prop(self):
        w()
        return P()

    @prop.setter
    def prop(self, value):
        w()

    @prop.deleter
    def prop(self):
        w()

    def __getattr__(self, name):
        w()
        return P()

    def keys(self):
        w()
        return ["a", "b"]

    def __round__(self, n=None):
        w()
        return P()

    def __abs__(self):
        w()
        return P()


def leaving(self, other):
    w()
    return P()


for name in OPERATORS:
    setattr(W, f"__{name}__", leaving)
    setattr(W, f"__r{name}__", leaving)
    setattr(W, f"__i{name}__", leaving)


class Key(Probe):
    """Equal to every other one."""

    def __init__(self, *args):
        self.args = args

    def __repr__(self):
        return "Key"

    def __hash__(self):
        return 5

    def __eq__(self, other):
        return True


class D:
    """Leaves when it is dropped."""

    def __init__(self, *args):
        self.args = args

    def __repr__(self):
        return "D"

    def __del__(self):
        w()

    def __add__(self, other):
        return P()

    def __call__(self, *args):
        return P()

    def __iter__(self):
        return iter((P(), P()))

    def __enter__(self):
        return P()

    def __exit__(self, *args):
        return True


class Descriptor:
    def __get__(self, instance, owner):
        w()
        return P()

    def __set__(self, instance, value):
        w()

    def __delete__(self, instance):
        w()

    def __set_name__(self, owner, name):
        w()


class Described:
    d = Descriptor()

    def __init_subclass__(cls, **kwargs):
        w()


class Odd:
    def __getattribute__(self, name):
        w()
        return P()

    def __setattr__(self, name, value):
        w()

    def __delattr__(self, name):
        w()


class Slotted:
    __slots__ = ("a", "b")


class E(Exception):
    pass


class EW(Exception):
    """Leaves when it is raised."""

    def __init__(self, *args):
        w()
        super().__init__(*args)


class EM(type):
    def __instancecheck__(cls, instance):
        w()
        return True

    def __subclasscheck__(cls, other):
        w()
        return True


class EC(metaclass=EM):
    __match_args__ = ("x",)


class Point(Probe):
    __match_args__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __repr__(self):
        return "Point"


def decorate(function):
    def wrapper(*args, **kwargs):
        return [function(*args, **kwargs), P()]

    return wrapper


def recurse(n, x):
    return [x, recurse(n - 1, P())] if n else [x, w()]


manager = contextlib.contextmanager(gw)
top = P()
'''


class Shape(NamedTuple):
    """A program: `shape()` is what runs in the greenlet."""

    name: str
    source: str
    # Whether a C function on the way keeps references in variables of its own while it waits, or an
    # instruction may have given references away (GIVES_AWAY). What they refer to may be hidden.
    owned_by_c: bool = False


# --- expressions --------------------------------------------------------------------------------

# What runs without a C function that keeps what it is given.
EXPRESSIONS: dict[str, str] = {
    # calls
    "call": "keep(_, _)",
    "call, one argument": "one(_)",
    "call, no Python function leaves": "s(_)",
    "call, two arguments to switch": "s(_, _)",
    "call, keywords to switch": "s(_, k=_)",
    "call, star to switch": "s(*[_, _])",
    "call, operator to switch": "[_, s(_) and _]",
    "call, keyword": "keep(_, k=_)",
    "call, defaults": "default(_)",
    "call, some defaults": "default(_, z=_)",
    "call, star": "keep(_, *[_], _)",
    "call, stars": "keep(*[_], *(_, _), k=_)",
    "call, two stars": "keep(_, **{'a': _}, **{'b': _}, k=_)",
    "call, all stars": "keep(_, *(_, _), k=_, **{'z': _})",
    "call, lambda": "(lambda x, y=_: [x, y])(_)",
    "call, closure": "make(_)(_)",
    "call, method": "P().m(_, k=_)",
    "call, class method": "P.cm(_)",
    "call, static method": "P.sm(_, _)",
    "call, bound method": "P().m.__call__(_)",
    "call, instance": "P()(_, _)",
    "call, class": "C(_, k=_)",
    "call, class with __new__": "N(_)",
    "call, type": "type(_) is P",
    "call, isinstance": "isinstance(_, (P, C))",
    "call, len": "len([_, _])",
    "call, list": "list((_, _))",
    "call, tuple": "tuple([_, _])",
    "call, str": "str(_)",
    "call, dict": "dict(a=_, b=_)",
    "call, dict of pairs": "dict([('a', _)], b=_)",
    "call, getattr": "getattr(_, 'y', _)",
    "call, list.append": "[l := [], l.append(_), l.append(_)]",
    "call, method descriptor": "[l := [], list.append(l, _)]",
    "call, dict.setdefault": "{}.setdefault(_, _)",
    "call, chained": "one(one(one(_)))",
    "call, W": "W()(_, _)",
    "call, recursion": "recurse(5, _)",
    "call, decorated": "decorate(decorate(keep))(_, k=_)",
    "call, zip": "[*zip([_], [_])]",
    "call, super": "type('T', (P,), {'m': lambda self, x: [super(P, self), x]})().m(_)",
    # displays
    "list": "[_, _, _]",
    "tuple": "(_, _)",
    "set": "{_, _}",
    "dict": "{'a': _, _: _}",
    "dict, constant keys": "{'a': _, 'b': _, 'c': _}",
    "dict, stars": "{**{'a': _}, 'b': _, **{'c': _}}",
    "list, star": "[_, *[_, _], _]",
    "tuple, star": "(_, *(_,), _)",
    "set, star": "{_, *[_], _}",
    "list, star of a generator function": "[*(_, _), *[_]]",
    "nested": "[(_, {'a': [_, {_}]})]",
    # comprehensions
    "list comprehension": "[[x, _] for x in (1, 2)]",
    "list comprehension, source": "[[x] for x in [_, _]]",
    "list comprehension, condition": "[x for x in [_, _] if [_]]",
    "list comprehension, nested": "[[[x, y, _] for y in [_, x]] for x in [_]]",
    "list comprehension, two loops": "[(x, y, _) for x in [_] for y in [_, x]]",
    "list comprehension, closure": "[f() for f in [lambda: [x, _] for x in [_, _]]]",
    "dict comprehension": "{x: _ for x in 'ab'}",
    "dict comprehension, key": "{(x, _): x for x in [_]}",
    "set comprehension": "{(x, _) for x in 'ab'}",
    "generator expression, not run": "([x, _] for x in [_]) is None",
    "walrus": "[y := _, y, (z := _)]",
    # operators
    "not": "not _",
    "and": "_ and _",
    "or": "[] or _ or _",
    "conditional": "_ if _ else _",
    "is": "_ is _",
    "is not": "_ is not _",
    "in list": "_ in [_, 1]",
    "in P": "_ in P()",
    "not in P": "_ not in P()",
    "less": "_ < _",
    "chained comparison": "_ < _ < _",
    "chained comparison, mixed": "_ < _ in P() is not _",
    "equal": "_ == _",
    "negative": "-_",
    "invert": "~_",
    "list and list": "[_] + [_]",
    "list times": "[_] * 2",
    "W < ": "W() < _",
    "< W": "_ < _ < W() < _",
    "-W": "[_, -W()]",
    "not W": "[_, not W()]",
    "W and": "[_, W() and _]",
    "W or": "[_, W() or _]",
    "W if": "[_, (_ if W() else _)]",
    "in W": "[_, _ in W()]",
    # subscripts and attributes
    "subscript of a list": "[_, _][0]",
    "subscript of a tuple": "(_, _)[1]",
    "subscript of a dict": "{'a': _, 'b': _}['a']",
    "slice of a list": "[_, _][0:1]",
    "subscript of P": "P()[_]",
    "slice of P": "P()[_:_]",
    "slice with step": "P()[_:_:_]",
    "subscripts of P": "P()[..., _, _:_]",
    "subscript of W": "[_, W()[_]]",
    "slice of W": "[_, W()[_:_]]",
    "attribute of a class": "P.m",
    "property": "[_, W().prop]",
    "__getattr__": "[_, W().missing]",
    "__getattribute__": "[_, Odd().a]",
    "descriptor": "[_, Described().d, Described.d]",
    "method of a descriptor": "[_, Described().d.m(_)]",
    # strings
    "f-string": "f'{_}'",
    "f-string, many": "f'{_} and {_!r:>{3}} and {_!s}'",
    "f-string, W": "f'{_}{W()}{_}'",
    "f-string, W, conversions": "[_, f'{_}{W()!r}{W()!s}']",
    "percent": "'%s %s' % (_, _)",
    "format": "'{} {}'.format(_, _)",
    # async, driven here
    "coroutine": "drive(co(_, _))",
    "coroutine that leaves": "drive(cow(_))",
    "coroutine, nested": "drive(co(drive(cow(_)), _))",
    # generators
    "next of a generator": "next(g(_, _))",
    "next of a generator that leaves": "[h := gw(_, _), next(h), next(h)]",
    "send": "[h := gw(_, _), next(h), h.send(_)]",
    "close": "[h := gw(_, _), next(h), h.close()]",
    "context variable": "[v := contextvars.ContextVar('v'), v.set(_), v.get(_)]",
    "lambda in lambda": "(lambda x: lambda y: [x, y, _])(_)(_)",
    "conditional lambda": "(lambda *a, **k: (a, k, _))(_, *[_], a=_)",
}

for _sign in ("+", "-", "*", "/", "//", "%", "@", "**", "&", "|", "^", "<<", ">>"):
    EXPRESSIONS[f"{_sign}"] = f"_ {_sign} _"
    EXPRESSIONS[f"W {_sign}"] = f"[_, W() {_sign} _]"
    EXPRESSIONS[f"{_sign} W"] = f"[_, 1 {_sign} W()]"

# Where a C function may keep what it is given, or what it made of it, while Python code runs.
IN_C: dict[str, str] = {
    "call, class with __init__": "Q(_)",
    "attribute": "Q(_).x",
    "call, two stars to switch": "s(**{'k': _})",
    "call, W with star": "W()(*[_], **{'a': _})",
    "partial": "functools.partial(keep, _)(_, k=_)",
    "partial of w": "functools.partial(w, _)(_, k=_)",
    "partial of switch": "functools.partial(s, _)(_)",
    "partial of switch, keywords": "functools.partial(s, a=_)(_, b=_)",
    "partial of partials": "functools.partial(functools.partial(s, _), _)(_)",
    "partial of Context.run of switch": "functools.partial(contextvars.Context().run, s)(_)",
    "partial of Context.run of w": "functools.partial(contextvars.Context().run, w)(_, _)",
    "partial of Context.run of a descriptor": (
        "functools.partial(contextvars.Context().run, greenlet.__dict__['switch'])(main, _)"
    ),
    "bound partial": (
        "types.MethodType(functools.partial(contextvars.Context().run, "
        "greenlet.__dict__['switch']), main)(_)"
    ),
    "bound method of switch": "types.MethodType(functools.partial(s), _)()",
    "switch of the class": "greenlet.switch(main, _)",
    "switch of the class, star": "greenlet.switch(*[main, _])",
    "throw of a dead greenlet": "[h := greenlet(str), h.switch(), h.dead, _]",
    "operator.add": "operator.add(W(), _)",
    "methodcaller": "operator.methodcaller('m', _)(_)",
    "methodcaller of W": "operator.methodcaller('__call__', _)(W())",
    "attrgetter": "operator.attrgetter('prop')(W())",
    "sorted": "sorted([_, _], key=w)",
    "sorted, W": "sorted([W(), W()])",
    "list.sort": "[_, W(), W()].sort()",
    "map": "[*map(w, [_, _])]",
    "filter": "[*filter(w, [_, _])]",
    "map of switch": "[*map(s, [_, _])]",
    "reduce": "functools.reduce(w, [_, _, _], _)",
    "max": "max([_, _], key=w)",
    "min": "min(W(), _)",
    "sum": "sum([W(), _], _)",
    "any": "any([_, W()])",
    "all of a generator": "all(gw(_, _))",
    "list of a generator": "list(gw(_, _))",
    "tuple of a generator": "tuple(gw(_, _))",
    "set of a generator": "set(gw(_, _))",
    "dict of W": "dict(W(), k=_)",
    "stars of a generator": "[*gw(_, _), _]",
    "call, star of a generator": "keep(*gw(_, _), _)",
    "call, star of W": "keep(_, *W(), k=_)",
    "call, two stars of W": "keep(_, **W())",
    "dict, two stars of W": "{'c': _, **W()}",
    "set, W": "{_, W(), W()}",
    "dict, W": "{W(): _, W(): _}",
    "dict, W comprehension": "{x: _ for x in [W(), W()]}",
    "generator expression": "list([x, _] for x in [_, _])",
    "generator expression, condition": "list(x for x in [_, _] if [_])",
    "any of a generator expression": "any(not [x, _] for x in [_])",
    "join": "','.join(str(W()) for x in [_])",
    "getattr of W": "getattr(W(), 'missing', _)",
    "hasattr of W": "hasattr(W(), 'prop')",
    "isinstance by W": "isinstance(_, EC)",
    "issubclass by W": "issubclass(P, EC)",
    "len of W": "[_, len(W())]",
    "bool of W": "[_, bool(W())]",
    "str of W": "[_, str(W()), repr([W(), _])]",
    "hash of W": "[_, hash(W())]",
    "iter of W": "[_, next(iter(W()))]",
    "abs of W": "[_, abs(W()), round(W(), 1)]",
    "range of W": "range(0, W(), W())",
    "list index W": "[_, _][W()]",
    "list slice W": "[_, _][W():W()]",
    "bytes of W": "[_, bytes([W()]), b'abc'[W()]]",
    "in list W": "_ in [1, W(), _]",
    "list.index": "[P(), W()].index(1)",
    "list equal": "[_, W()] == [_, _]",
    "tuple less": "(_, W()) < (_, _)",
    "dict get W": "{1: _}.get(W(), _)",
    "dict subscript W": "{W(): _}[W()]",
    "dict equal": "{'a': W()} == {'a': _}",
    "percent W": "'%s %r' % (W(), W())",
    "format W": "'{} {}'.format(W(), _)",
    "format function": "format(W(), '')",
    "zip of generators": "[*zip(gw(_), gw(_))]",
    "enumerate of a generator": "[*enumerate(gw(_, _))]",
    "chain of a generator": "[*itertools.chain(gw(_), gw(_))]",
    "Context.run": "contextvars.copy_context().run(w, _, k=_)",
    "exec": "exec('x = w(a)', globals(), {'a': _})",
    "eval": "eval('[w(a), a]', globals(), {'a': _})",
    "type with three arguments": "type('T', (Described,), {'a': _, 'b': Descriptor()}) is None",
    "__import__": "[_, __import__('visited_' + serial())] is None",
    "re.sub": "re.sub('x', lambda match: str(w()), 'axbx')",
    "cached property": "[_, Cached().value]",
    "lru cache": "functools.lru_cache(w)(_)",
    "reversed": "[*reversed([_, _])]",
    "weakref callback": "[weakref.ref(P(), w), _]",
    "weak dictionary": "[d := weakref.WeakValueDictionary(), d.__setitem__('a', _), len(d)]",
}

# Names that only those above need.
HELPERS += """

class Cached:
    @functools.cached_property
    def value(self):
        return [w(), P()]
"""

# --- statements ---------------------------------------------------------------------------------

STATEMENTS: dict[str, str] = {
    "unpack a tuple": "a, b = _, _",
    "unpack three": "a, b, c = _, _, _",
    "unpack a list": "a, b, c = [_, _, _]",
    "unpack a star": "a, *b, c = [_, _, _, _]",
    "unpack nested": "(a, b), [c, *d] = [_, _], (_, _)",
    "unpack a generator": "a, b = g(_, _)",
    "unpack P": "a, b = P()",
    "unpack W": "a, b = W()",
    "unpack W, star": "a, *b = W()",
    "unpack D": "a, b = D()",
    "unpack into subscripts": "l = [0, 0]\nl[0], l[1] = _, _\na = l",
    "unpack too many": "try:\n    a, b = [_, _, _]\nexcept ValueError:\n    a = _",
    "chained assignment": "a = b = _\nc = d = (_, a)",
    "attributes": "o = P()\no.x = _\no.x += _\na = o.x\ndel o.x",
    "attributes of W": "o = W()\no.prop = _\no.prop += _\ndel o.prop",
    "attributes of Odd": "o = Odd()\no.a = _\no.a += _\ndel o.a",
    "attributes of slots": "o = Slotted()\no.a = _\no.b = o.a, _\no.a += _\ndel o.a",
    "descriptors": "o = Described()\no.d = _\no.d += _\ndel o.d",
    "subscripts of a list": "l = [_, _]\nl[0] = _\nl[1] += _\ndel l[0]\na = l",
    "subscripts of a dict": "d = {}\nd[_] = _\nd['a'] = _\nd['a'] += _\ndel d['a']\na = d",
    "subscripts of P": "o = P()\no[_] = _\no[_] += [_]\ndel o[_]",
    "subscripts of W": "o = W()\no[_] = _\no[_] += [_]\ndel o[_]",
    "slices of a list": "l = [_, _, _]\nl[0:1] = [_]\nl[1:] += [_]\ndel l[0:1]\na = l",
    "slices of P": "o = P()\no[_:_] = _\no[_:_] += [_]\ndel o[_:_]",
    "slices of W": "o = W()\no[_:_] = _\no[_:_] += [_]\ndel o[_:_]",
    "augmented": "a = _\na += _\na @= _\na = [_]\na += [_]\na *= 2",
    "augmented W": "a = W()\na += _\na = W()\na //= _",
    "delete": "a = _\nb = _\ndel a\na = _\ndel a, b",
    "overwrite": "a = _\na = _\na = one(a)",
    "annotations": "a: 'x' = _\nb: 'y'\na = a",
    "global": "global g1\ng1 = _\ng1 = [g1, _]\na = g1\ndel g1",
    "nonlocal": (
        "x = _\ndef inner():\n    nonlocal x\n    x = [x, _]\n    return x\na = inner(), inner(), x"
    ),
    "nonlocal deleted": (
        "x = _\ndef inner():\n    nonlocal x\n    del x\n    x = _\n    return x\na = inner()"
    ),
    "if": "if _:\n    a = _\nelse:\n    a = 1",
    "elif": "if not _:\n    a = 1\nelif _:\n    a = _",
    "if W": "b = _\nif W():\n    a = _",
    "while": "n = 0\nwhile [n, _] and n < 2:\n    n += 1\n    a = _\nelse:\n    b = _",
    "while, break": "while _:\n    a = _\n    break\nelse:\n    b = _",
    "while, continue": (
        "n = 0\nwhile n < 3:\n    n += 1\n    if n == 2:\n        continue\n    a = _"
    ),
    "while W": "o = W()\nwhile o:\n    a = _\n    break",
    "for a list": "for x in [_, _]:\n    a = x, _\nelse:\n    b = _",
    "for a tuple": "for x in (_, _):\n    a = x, _",
    "for a range": "for x in range(2):\n    a = [x, _]",
    "for a dict": "for x in {'a': _, 'b': _}:\n    a = [x, _]",
    "for items": "for x, y in {'a': _, 'b': _}.items():\n    a = [x, y, _]",
    "for a generator": "for x in g(_, _):\n    a = [x, _]",
    "for a generator that leaves": "for x in gw(_, _):\n    a = x",
    "for W": "for x in W():\n    a = [x, _]",
    "for, break": "for x in [_, _]:\n    a = _\n    break\nelse:\n    b = 1",
    "for, return": "for x in [_, _]:\n    return [x, _]",
    "for, nested": "for x in [_]:\n    for y in [x, _]:\n        a = x, y, _",
    "for, unpack": "for x, (y, z) in [(_, (_, _))]:\n    a = x, y, z, _",
    "for, target": "l = [0]\nfor l[0] in [_, _]:\n    a = _\nb = l",
    "return": "return [_, _]",
    "assert": "assert _, _\na = _",
    "assert fails": "try:\n    assert not _, [_]\nexcept AssertionError as e:\n    a = e.args",
    "assert W": "b = _\nassert W(), _",
    "try": "try:\n    a = _\nexcept E:\n    a = 1\nelse:\n    b = _\nfinally:\n    c = _",
    "except": "try:\n    raise E(_)\nexcept E as e:\n    a = [e.args, _]\nfinally:\n    b = _",
    "except, no name": "try:\n    raise E(_)\nexcept E:\n    a = [_]\nb = _",
    "except, tuple": "try:\n    raise E(_)\nexcept (KeyError, E):\n    a = [_]",
    "except, bare": "try:\n    raise E(_)\nexcept:\n    a = [_]",
    "except, expression": "try:\n    raise E\nexcept (_, E)[1]:\n    a = _",
    "except, second": "try:\n    raise E(_)\nexcept KeyError:\n    a = 1\nexcept E:\n    a = _",
    "except, by W": "try:\n    raise EW(_, _)\nexcept EW as e:\n    a = e.args",
    "except, in a call": "try:\n    [_, one(_, 1)]\nexcept TypeError:\n    a = _",
    "except, nested": (
        "try:\n    try:\n        raise E(_)\n    except E:\n        raise KeyError(_)\n"
        "except KeyError as e:\n    a = [e.__context__.args, _]"
    ),
    "except, within": (
        "try:\n    raise E(_)\nexcept E:\n    try:\n        raise KeyError(_)\n"
        "    except KeyError:\n        a = _\n    b = _"
    ),
    "raise from": (
        "try:\n    try:\n        raise E(_)\n    except E as e:\n        raise KeyError(_) from e\n"
        "except KeyError as e:\n    a = [e.__cause__, _] is None"
    ),
    "reraise": (
        "try:\n    try:\n        raise E(_)\n    except E:\n        a = _\n        raise\n"
        "except E:\n    b = _"
    ),
    "traceback": (
        "try:\n    raise E(_)\nexcept E as e:\n    t = e.__traceback__\n    a = _\ndel t"
    ),
    "finally": "try:\n    a = _\nfinally:\n    b = _",
    "finally, exception": (
        "try:\n    try:\n        raise E(_)\n    finally:\n        a = _\nexcept E:\n    b = _"
    ),
    "finally, return": "try:\n    return [_]\nfinally:\n    a = _",
    "finally, break": "for x in [_, _]:\n    try:\n        break\n    finally:\n        a = _",
    "finally, continue": (
        "for x in [_, _]:\n    try:\n        continue\n    finally:\n        a = _"
    ),
    "finally, nested": (
        "try:\n    try:\n        a = _\n    finally:\n        b = _\nfinally:\n    c = _"
    ),
    "except*": (
        "try:\n    raise ExceptionGroup('g', [E(_), KeyError(_)])\n"
        "except* E as e:\n    a = [e.exceptions, _] is None\n"
        "except* KeyError:\n    b = _\nfinally:\n    c = _"
    ),
    "except*, raises": (
        "try:\n    try:\n        raise ExceptionGroup('g', [E(_), KeyError(_)])\n"
        "    except* E as e:\n        raise TypeError(_)\n"
        "    except* KeyError as e:\n        a = _\n"
        "except ExceptionGroup as e:\n    b = _"
    ),
    "except*, naked": "try:\n    raise E(_)\nexcept* E as e:\n    a = _",
    "with": "with P() as x:\n    a = [x, _]",
    "with, expression": "with [_, P()][1] as x:\n    a = _",
    "with W": "with W() as x:\n    a = [x, _]",
    "with, two": "with P() as x, W() as y:\n    a = [x, y, _]",
    "with, exception": "with P():\n    raise E(_)\na = _",
    "with W, exception": "with W() as x:\n    raise E(_)\na = _",
    "with D": "with D(_) as x:\n    a = _",
    "with, return": "with W() as x:\n    return [x, _]",
    "with, break": "for x in [_, _]:\n    with W():\n        break",
    "with, target": "l = [0]\nwith P() as l[0]:\n    a = l, _",
    "contextmanager": "with manager(_) as x:\n    a = [x, _]",
    "suppress": "with contextlib.suppress(E):\n    raise E(_)\na = _",
    "ExitStack": (
        "with contextlib.ExitStack() as x:\n    x.enter_context(P())\n"
        "    x.callback(w, _)\n    a = _"
    ),
    "function": "def f(x, y=_, *, z=_):\n    return [x, y, z, _]\na = f(_), f(_, _, z=_)",
    "function, annotations": "def f(x: _, *y: _) -> _:\n    return [x, y]\na = f(_)",
    "function, decorators": "@decorate\n@decorate\ndef f(x):\n    return [x, _]\na = f(_)",
    "function, decorator expression": ("@(_, decorate)[1]\ndef f(x):\n    return [x, _]\na = f(_)"),
    "function, closure": "x = _\ndef f(y):\n    return [x, y, _]\na = f(_)\nx = _\nb = f(_)",
    "function, recursion": ("def f(n):\n    return [_, f(n - 1)] if n else _\na = f(3)"),
    "function, class cell": (
        "class K(C):\n    def __init__(self, *args):\n        super().__init__(*args)\n"
        "        w()\n"
        "a = K(_)"
    ),
    "function, many locals": "b, c, d, e, f = _, 1, [_], (), _\ndel c, e\na = _",
    "function only here": "def f(x):\n    return [x, _]\nf = f(f) and f\na = f(_)",
    "function on the stack": "a = (lambda x: [x, _])((lambda x: [x, _])(_))",
    "star arguments": "def f(*args, **kwargs):\n    return [args, kwargs, _]\na = f(_, k=_)",
    "positional only": "def f(x, /, y, *, z):\n    return [x, y, z, _]\na = f(_, y=_, z=_)",
    "generator": (
        "def f():\n    x = yield _\n    y = yield [x, _]\n    return [y, _]\n"
        "h = f()\na = next(h), h.send(_)\ntry:\n    next(h)\nexcept StopIteration as e:\n"
        "    b = e.value"
    ),
    "generator, throw": (
        "def f():\n    try:\n        yield _\n    except E as e:\n        yield [e.args, _]\n"
        "h = f()\na = next(h), h.throw(E(_))\nh.close()"
    ),
    "generator, close": (
        "def f():\n    try:\n        yield _\n    finally:\n        w()\nh = f()\n"
        "a = next(h)\nh.close()"
    ),
    "generator, dropped": (
        "def f():\n    try:\n        yield _\n    finally:\n        w()\nh = f()\n"
        "a = next(h)\ndel h"
    ),
    "generator, yield from": (
        "def f():\n    x = yield from gw(_, _)\n    return [x, _]\n"
        "def h():\n    return [(yield from f()), _]\na = [x for x in h()]"
    ),
    "generator, yield from W": "def f():\n    yield from W()\na = [x for x in f()]",
    "generator, in an expression": "def f():\n    return [_, (yield _), _]\na = [x for x in f()]",
    "generator, handles an exception": (
        "def f():\n    try:\n        raise E(_)\n    except E as e:\n        yield _\n        w()\n"
        "        yield _\na = [x for x in f()]"
    ),
    "generator, suspended": "h = gw(_, _)\na = next(h), _\nb = next(h), _",
    "coroutine": (
        "async def f(x):\n    y = await co(_)\n    return [x, y, await P(), _]\na = drive(f(_))"
    ),
    "coroutine, W": "async def f(x):\n    return [_, await W(), _]\na = drive(f(_))",
    "async for": (
        "async def f():\n    async for x in ag(_, _):\n        a = [x, _]\n    else:\n"
        "        b = _\n"
        "    return a, b\na = drive(f())"
    ),
    "async for W": "async def f():\n    async for x in W():\n        a = [x, _]\na = drive(f())",
    "async for, leaves": (
        "async def f():\n    async for x in agw(_, _):\n        a = [x, _]\na = drive(f())"
    ),
    "async with": "async def f():\n    async with W() as x:\n        a = [x, _]\na = drive(f())",
    "async with, exception": (
        "async def f():\n    async with W() as x:\n        raise E(_)\n    return _\na = drive(f())"
    ),
    "async comprehension": (
        "async def f():\n    return [[x, _] async for x in ag(_, _) if [_]]\na = drive(f())"
    ),
    "async comprehension, await": (
        "async def f():\n    return [[await x, _] for x in [_, _]]\na = drive(f())"
    ),
    "async generator, asend": (
        "async def f():\n    x = yield _\n    yield [x, _]\n"
        "async def h():\n    i = f()\n"
        "    return [await anext(i), await i.asend(_), await i.aclose()]\n"
        "a = drive(h())"
    ),
    "class": "class K:\n    a = _\n    b = [a, _]\na = K.b",
    "class, bases": "class K((_, P)[1], metaclass=(_, type)[1]):\n    a = _\na = K.a",
    "class, metaclass": "class K(metaclass=Meta, k=_):\n    a = _\na = K.a",
    "class, closure": (
        "x = _\nclass K:\n    a = x, _\n    def f(self):\n        return [x, __class__, _] and x\n"
        "a = K.a, K().f()"
    ),
    "class, decorated": (
        "@lambda k: (k, w())[0]\nclass K:\n    a = _\n    @property\n    def b(self):\n"
        "        return _\na = K.a, K().b"
    ),
    "class, __init_subclass__": (
        "class K(Described, k=_):\n    d2 = Descriptor()\n    a = _\na = K.a"
    ),
    "class, nested": "class K:\n    class L:\n        a = _\n    b = L.a, _\na = K.b",
    "class, annotations": "class K:\n    a: P = _\n    b: [_] = 1\na = K.a",
    "class, comprehension": "class K:\n    a = [[x, _] for x in [_]]\na = K.a",
    "class only here": "class K:\n    x = 1\nk = K()\ndel K\na = [_, k.x, type(k) is P]",
    "match value": "match _:\n    case 1:\n        a = 1\n    case _:\n        a = P(), w()",
    "match sequence": (
        "match [_, _, _]:\n    case [x]:\n        a = 1\n    case [x, *y] if [w()]:\n"
        "        a = x, y, w()"
    ),
    "match mapping": (
        "match {'k': _, 'l': _}:\n    case {'m': x}:\n        a = 1\n"
        "    case {'k': x, **y}:\n        a = x, y, w()"
    ),
    "match class": (
        "match Point(_, _):\n    case P():\n        a = 1\n    case Point(x, y=z) if w():\n"
        "        a = x, z, w()"
    ),
    "match W": (
        "match [W(), P()]:\n    case [1, 2]:\n        a = 1\n"
        "    case [W(x=z), P() as y]:\n        a = y, w()"
    ),
    "match by W": "match Q(w()):\n    case EC(x):\n        a = x, w()",
    "match or": (
        "match (_, [_, Point(_, 1)]):\n    case (x, [y, Point(z, 2) | Point(z, 1)]):\n"
        "        a = x, y, z, w()"
    ),
    "match capture": "match [_]:\n    case x:\n        a = x, w()",
    "import": "b = _\nimport visited\na = visited.x, _",
    "import from": "b = _\nfrom visited_from import x\na = x, _",
    "import as": "b = _\nimport visited_as as m\na = m.x, _",
    "import dotted": "b = _\nimport visited_package.inner as m\na = m.x, _",
    "del of a local": "a = D(_)\ndel a\nb = _",
    "del overwritten": "a = D(_)\na = _",
    "del of an expression": "D(_)\na = _",
    "del of an operand": "a = D(_) + _\nb = 1",
    "del of an argument": "a = one(D(_)) and _",
    "del of a callee": "a = [_, D()(_)]",
    "del of a list": "l = [D(), _, D()]\nl.clear()\na = _",
    "del of a loop": "for x in D(_):\n    a = x, _",
    "del of a loop's items": "for x in [D(), D()]:\n    a = _\ndel x",
    "del in a comprehension": "a = [_ for x in [D(), D()]]",
    "del of a return": "def f():\n    x = D(_)\n    return _\na = f()",
    "del of an unpacked": "x, y = D(), _\nx, y = y, D()\ndel x, y\na = _",
    "del of an exception": "try:\n    raise E(D())\nexcept E:\n    a = _\nb = _",
    "del of a subscript": "l = [D(), _]\nl[0] = _\na = l",
    "del of an attribute": "o = P()\no.x = D()\no.x = _\na = o.x",
    "del of a condition": "if D():\n    a = _",
    "del of a comparison": "a = D() is _, D() == _, _",
    "del of an f-string": "a = f'{D()}{_}'",
    "del of a frame in an exception": (
        "def f():\n    x = D()\n    y = [_, one(_, 1)]\ntry:\n    f()\n"
        "except TypeError:\n    a = _\nb = _"
    ),
    "del of a global": "global g2\ng2 = D()\ng2 = _\na = g2\ndel g2",
    "del of a cell": "x = D()\ndef f():\n    return x\nx = _\na = f()",
    "del of a generator": "h = g(D(), _)\nnext(h)\ndel h\na = _",
    "del of slots": "o = Slotted()\no.a = D()\no.a = _\ndel o.a\na = _",
    "del of a dict's value": "d = {'a': D()}\nd['a'] = _\na = d",
    "del of a dict's value, equal key": (
        "d = {Key(): D()}\nd[Key()] = _\nd[Key(_)] = D()\nd[Key()] = _\na = d.values()"
    ),
    "del in a dict comprehension": "a = {x: (D(), P())[x] for x in (0, 1, 0)}\nb = _\ndel a",
    "del in a dict comprehension, same key": "a = {'k': x for x in (D(), _, D())}\nb = _\ndel a",
    "del in a set comprehension": "a = {(x, Key(D()))[1] for x in [_, _]}\na = _",
    "del of a set's value": "a = {Key(D()), Key(D()), Key(_)}\na = _",
    "del of a class's attribute": "class K:\n    pass\nK.x = D()\nK.x = _\ndel K",
    "del of a nonlocal": ("x = D()\ndef f():\n    nonlocal x\n    x = _\n    return x\na = f()"),
    "del of a default": "def f(x=D()):\n    return x\nf.__defaults__ = (_,)\na = f()",
    "failed store": "def f():\n    {}[[]] = 1\ntry:\n    f()\nexcept TypeError as e:\n    a = _",
    "failed store, a local": (
        "def f(x):\n    {}[[]] = x\ntry:\n    f(_)\nexcept TypeError as e:\n    a = _"
    ),
    "failed set": (
        "def f(x):\n    {y for y in [[]]}\ntry:\n    f(_)\nexcept TypeError as e:\n    a = _"
    ),
    "failed dict": (
        "def f(x):\n    {y: x for y in [[]]}\ntry:\n    f(_)\nexcept TypeError as e:\n    a = _"
    ),
    "raise a class": "try:\n    raise EW\nexcept EW as e:\n    a = _",
    "raise from a class": "try:\n    raise E(_) from EW\nexcept E as e:\n    a = _",
    "raise a class from a class": "try:\n    raise EW from EW\nexcept EW as e:\n    a = _",
    "frame object": "f = sys._getframe()\na = _\ndel f\nb = _",
    "frame object, kept": "a = sys._getframe\nf = a()\nb = f.f_locals is None, _\ndel f",
    "locals": "b = _\na = locals() is None, _",
    "locals, kept": "b = _\nl = locals()\na = _\ndel l",
    "greenlet within": "a = greenlet(lambda x: [x, _, P()]).switch(_)",
    "greenlet within, which leaves": (
        "h = greenlet(lambda x: [x, inner.switch(), P()])\ninner = getcurrent()\n"
        "h.switch(_)\na = _\nh.switch()"
    ),
    "greenlet thrown into": (
        "me = getcurrent()\ndef f():\n    try:\n        me.switch()\n    except E as e:\n"
        "        w()\n"
        "        return e.args\nh = greenlet(f)\nh.switch()\na = h.throw(E(_)), _"
    ),
}

NEWER_EXPRESSIONS: Mapping[tuple[int, int], dict[str, str]] = {
    (3, 12): {"f-string, nested": "f'{f'{_}{[_, f\"{W()}\"]}'}'"},
    (3, 14): {
        "t-string": "t'{_}{_!r:>{3}}'",
        "t-string, nested": "t'{_}{t'{_}'}{f'{_}'}'",
    },
    (3, 15): {
        "list comprehension, star": "[*[x, _] for x in [_, _]]",
        "dict comprehension, stars": "{**{'a': x, 'b': _} for x in [_, _]}",
        "set comprehension, star": "{*[x, _] for x in [_]}",
    },
}

NEWER_STATEMENTS: Mapping[tuple[int, int], dict[str, str]] = {
    (3, 12): {
        "type parameters": (
            "def f[T: (w(), P())](x: T):\n    return [x, _]\n"
            "a = f(_), f.__type_params__[0].__bound__"
        ),
        "type alias": "type K = [w(), P()]\na = K.__value__, _",
        "generic class": (
            "class K[T](C):\n    a = _\n    def f(self):\n"
            "        return [__class__, _] is None\na = K.a, K().f()"
        ),
        "comprehension in a class": "class K:\n    x = _\n    a = [[y, _] for y in [x]]\na = K.a",
    },
    (3, 13): {
        "type parameter default": (
            "def f[T = [w()]](x):\n    return [x, _]\na = f(_), f.__type_params__[0].__default__"
        ),
    },
    (3, 14): {
        "annotations, evaluated": "def f(x: [w(), P()]):\n    return x\na = f.__annotations__, _",
        "except without brackets": "try:\n    raise E(_)\nexcept KeyError, E:\n    a = _",
    },
}

# Statements in which a C function, or the interpreter while it drops operands or a frame, has
# references in variables of its own (see Shape.owned_by_c).
STATEMENTS_IN_C = frozenset(
    {
        "ExitStack",
        "async with",
        "class, __init_subclass__",
        "class, metaclass",
        "del of a callee",
        "del of a list",
        "del of a return",
        "import",
        "import as",
        "import dotted",
        "import from",
        "unpack D",
        "unpack W",
        "unpack W, star",
    }
)

# Instructions that give a reference away and leave it on the frame's value stack, while what they
# call drops something else and so runs Python code (Python/bytecodes.c of 3.14 and 3.15). In a
# generator that runs CPython's own collector finds the object once more than it is owned.
GIVES_AWAY: dict[str, str] = (
    {
        "del of a cell": "STORE_DEREF, which drops the cell's old value",
        "del of a nonlocal": "STORE_DEREF, which drops the cell's old value",
        "del of a dict's value": "STORE_SUBSCR_DICT, which drops the dict's old value",
        "del of a dict's value, equal key": "STORE_SUBSCR_DICT, which drops the dict's old value",
        "del in a dict comprehension": "MAP_ADD, which drops the dict's old value",
        "del in a set comprehension": "SET_ADD, which deallocates an item that is there already",
    }
    if VERSION >= (3, 14)
    else {}
)

HOLE = re.compile(r"(?<![\w.'\"])(?<!case )_(?![\w'\"])")


def since_this(newer: Mapping[tuple[int, int], dict[str, str]]) -> dict[str, str]:
    return {
        name: text
        for version, texts in newer.items()
        if version <= VERSION
        for name, text in texts.items()
    }


def fill(text: str, values: Iterator[str]) -> str:
    return HOLE.sub(lambda match: next(values), text)


def holes(text: str) -> int:
    return len(HOLE.findall(text))


def of_expression(text: str) -> str:
    return f"def shape():\n    local = P()\n    return [P(), {text}, local]\n"


def of_statements(text: str) -> str:
    body = textwrap.indent(text, "    ")
    return (
        f"def shape():\n    local = P()\n{body}\n"
        "    found = locals()\n    return [found[name] for name in 'ab' if name in found]\n"
    )


def variants(name: str, text: str, *, in_c: bool, statements: bool) -> Iterator[Shape]:
    whole = of_statements if statements else of_expression
    count = holes(text)
    in_c = in_c or name in GIVES_AWAY
    for leave in ("w()", "s() or P()"):
        for place in range(count):
            values = iter([leave if hole == place else "P()" for hole in range(count)])
            label = f"{name} [{place + 1}/{count} {leave[0]}]"
            yield Shape(label, whole(fill(text, values)), in_c)
    if not count or re.search(r"\b(W|D|w|gw|cow|agw|Meta|EC|Odd|Desc\w+)\(|\bEW\b", text):
        source = whole(fill(text, iter(["P()"] * count)))
        yield Shape(f"{name} [itself]", source, in_c)


def catalogue() -> list[Shape]:
    """Every shape once for each place to leave it from, by a Python function and by switch()."""
    shapes: list[Shape] = []
    for texts, in_c in ((EXPRESSIONS | since_this(NEWER_EXPRESSIONS), False), (IN_C, True)):
        for name, text in texts.items():
            shapes += variants(name, text, in_c=in_c, statements=False)
    for name, text in (STATEMENTS | since_this(NEWER_STATEMENTS)).items():
        shapes += variants(name, text, in_c=name in STATEMENTS_IN_C, statements=True)
    return shapes


def expressions_for_any(*, in_c: bool) -> list[str]:
    """Those in whose holes any expression can stand, and which can stand in any hole."""
    texts = (IN_C if in_c else EXPRESSIONS | since_this(NEWER_EXPRESSIONS)).values()
    # A walrus in a comprehension is a syntax error.
    return [text for text in texts if ":=" not in text and takes_quotes(text)]


def statements_for_any() -> dict[str, str]:
    """Those in whose holes any expression can stand."""
    texts = STATEMENTS | since_this(NEWER_STATEMENTS)
    return {
        name: text for name, text in texts.items() if name not in GIVES_AWAY and takes_quotes(text)
    }


def takes_quotes(text: str) -> bool:
    # Quotes within the quotes of an f-string are syntax errors before 3.12.
    return "f'" not in text and "t'" not in text


def random_expression(chance: random.Random, depth: int, *, in_c: bool) -> str:
    if depth == 0 or chance.random() < 0.1:
        return chance.choice(["P()", "P()", "w()", "(s() or P())"])
    text = chance.choice(expressions_for_any(in_c=in_c and chance.random() < 0.3))
    values = [random_expression(chance, depth - 1, in_c=in_c) for _ in range(holes(text))]
    return f"({fill(text, iter(values))})"


def random_shape(chance: random.Random) -> Shape:
    """Expressions in expressions, and those in statements.

    A W in a container may be called by a C function that owns it for that long (list.__repr__()).
    """
    in_c = chance.random() < 0.3
    if chance.random() < 0.4:
        text = random_expression(chance, 3, in_c=in_c)
        return Shape("at random", of_expression(text), in_c or "W(" in text)
    texts = statements_for_any()
    name = chance.choice([*texts])
    text = texts[name]
    values = [random_expression(chance, chance.randrange(3), in_c=in_c) for _ in range(holes(text))]
    text = fill(text, iter(values))
    in_c = in_c or name in STATEMENTS_IN_C or "W(" in text
    return Shape(f"{name}, at random", of_statements(text), in_c)
