"""Programs that recurse without end, or deeply, in every way that CPython knows.

Each defines `program()`. In a thread and in a greenlet it must end in the same way: with a result
or with an exception.
"""

from __future__ import annotations

from collections.abc import Mapping

PROGRAMS: Mapping[str, str] = {
    "repr of a nested list": """
        nested = []
        for _ in range(12_000):  # repr looks for cycles in a list: its cost is quadratic
            nested = [nested]
        def program():
            repr(nested)
    """,
    "comparison of nested tuples": """
        left, right = (), ()
        for _ in range(100_000):
            left, right = (left,), (right,)
        def program():
            left == right
    """,
    "hash of nested tuples": """
        def program():
            nested = ()  # a tuple remembers its hash
            for _ in range(5_000):
                nested = (nested,)
            hash(nested)
    """,
    "json.dumps of a nested list": """
        import json
        nested = []
        for _ in range(100_000):
            nested = [nested]
        def program():
            json.dumps(nested)
    """,
    "json.loads of nested brackets": """
        import json
        text = "[" * 100_000 + "]" * 100_000
        def program():
            json.loads(text)
    """,
    "copy.deepcopy of a nested list": """
        import copy
        nested = []
        for _ in range(100_000):
            nested = [nested]
        def program():
            copy.deepcopy(nested)
    """,
    "pickle.dumps of a nested list": """
        import pickle
        nested = []
        for _ in range(100_000):
            nested = [nested]
        def program():
            pickle.dumps(nested)
    """,
    "ast of nested parentheses": """
        import ast
        text = "(" * 150 + "1" + ")" * 150
        def program():
            ast.parse(text)
    """,
    "ast of a long chain of operators": """
        import ast
        text = "-" * 50_000 + "1"
        def program():
            ast.parse(text)
    """,
    "compile of a long attribute chain": """
        text = "a" + ".a" * 50_000
        def program():
            compile(text, "", "eval")
    """,
    "a pattern with nested groups": """
        import re
        pattern = "(?:" * 5_000 + "a" + ")" * 5_000
        def program():
            re.compile(pattern)
    """,
    "recursion through map": """
        def program():
            list(map(lambda _: program(), [1]))
    """,
    "recursion through functools.reduce": """
        import functools
        def program():
            functools.reduce(lambda left, right: program(), [1, 2])
    """,
    "recursion through sorted": """
        def program():
            sorted([1], key=lambda _: program())
    """,
    "recursion through re.sub": """
        import re
        def program():
            re.sub("a", lambda match: program(), "a")
    """,
    "recursion through functools.partial": """
        import functools
        def program():
            functools.partial(program)()
    """,
    "recursion in __getattr__": """
        class Endless:
            def __getattr__(self, name):
                return getattr(self, name + "x")
        def program():
            Endless().a
    """,
    "recursion in __repr__": """
        class Endless:
            def __repr__(self):
                return repr([self, Endless()])
        def program():
            repr(Endless())
    """,
    "recursion in __eq__": """
        class Endless:
            def __eq__(self, other):
                return [Endless()] == [Endless()]
        def program():
            Endless() == Endless()
    """,
    "recursion in __call__": """
        class Endless:
            def __call__(self):
                return Endless()()
        def program():
            Endless()()
    """,
    "recursion in __init__": """
        class Endless:
            def __init__(self):
                Endless()
        def program():
            Endless()
    """,
    "recursion in a property": """
        class Endless:
            @property
            def value(self):
                return self.value
        def program():
            Endless().value
    """,
    "recursion in __iter__": """
        class Endless:
            def __iter__(self):
                return iter(list(Endless()))
        def program():
            list(Endless())
    """,
    "recursion in __format__": """
        class Endless:
            def __format__(self, spec):
                return f"{Endless()}"
        def program():
            f"{Endless()}"
    """,
    "nested generators": """
        def generator():
            yield from generator()
        def program():
            next(generator())
    """,
    "release of a nested list": """
        def program():
            nested = []
            for _ in range(200_000):
                nested = [nested]
            del nested
    """,
    "release of nested tuples and dicts": """
        def program():
            nested = None
            for _ in range(100_000):
                nested = ({"a": nested},)
            del nested
    """,
    "release of a chain of instances": """
        class Node:
            pass
        def program():
            first = Node()
            for _ in range(100_000):
                node = Node()
                node.following = first
                first = node
            del node, first
    """,
    "release of a chain of generators": """
        def generator(held):
            yield held
        def program():
            held = None
            for _ in range(20_000):
                running = generator(held)
                next(running)
                held = running
            del running, held
    """,
}

# More of them, which test_overflow.py runs. `overflow` is tests/extensions/overflow.c.
MORE_PROGRAMS: Mapping[str, str] = {
    "Python calls": """
        def program():
            program()
    """,
    "pickle.loads of a nested list": """
        import pickle
        text = b"]" * 50_000 + b"a" * 49_999 + b"."
        def program():
            pickle.loads(text)
    """,
    "pickle in Python of a nested list": """
        import pickle
        nested = []
        for _ in range(20_000):
            nested = [nested]
        def program():
            pickle._dumps(nested)
    """,
    "pickle through __reduce__": """
        import pickle
        class Endless:
            def __reduce__(self):
                return list, ([Endless()],)
        def program():
            pickle.dumps(Endless())
    """,
    "marshal.dumps of a nested list": """
        import marshal
        nested = []
        for _ in range(20_000):
            nested = [nested]
        def program():
            marshal.dumps(nested)
    """,
    "marshal.loads of a nested list": """
        import marshal
        text = b"[\\1\\0\\0\\0" * 20_000 + b"N"
        def program():
            marshal.loads(text)
    """,
    "copy.deepcopy through __deepcopy__": """
        import copy
        class Endless:
            def __deepcopy__(self, memo):
                return copy.deepcopy([Endless()], memo)
        def program():
            copy.deepcopy(Endless())
    """,
    "json.dumps in Python of a nested list": """
        import json
        nested = []
        for _ in range(2_000):  # each level writes its indentation
            nested = [nested]
        def program():
            json.dumps(nested, indent=1)
    """,
    "compile of nested brackets": """
        text = "[" * 20_000 + "]" * 20_000
        def program():
            try:
                compile(text, "", "eval")
            except SyntaxError:
                pass
    """,
    "compile of a deep tree": """
        import ast
        tree = ast.Constant(1, lineno=1, col_offset=0)
        for _ in range(20_000):
            tree = ast.UnaryOp(ast.USub(), tree, lineno=1, col_offset=0)
        tree = ast.Expression(tree)
        def program():
            compile(tree, "", "eval")
    """,
    "ast.unparse of a deep tree": """
        import ast
        tree = ast.Constant(1)
        for _ in range(5_000):
            tree = ast.UnaryOp(ast.USub(), tree)
        def program():
            ast.unparse(tree)
    """,
    "recursion through eval": """
        def program():
            eval("program()")
    """,
    "a match of nested groups": """
        import re
        pattern = re.compile("(?:" * 90 + "a*b?" + ")*" * 90)
        def program():
            pattern.fullmatch("ab" * 50_000)
    """,
    "order of nested lists": """
        left, right = [1], [2]
        for _ in range(1_500):  # each level compares for equality first: the cost is quadratic
            left, right = [left], [right]
        def program():
            left < right
    """,
    "equality of nested dicts": """
        left, right = {}, {}
        for _ in range(50_000):
            left, right = {1: left}, {1: right}
        def program():
            left == right
    """,
    "a set of nested tuples": """
        def program():
            nested = ()
            for _ in range(5_000):
                nested = (nested,)
            frozenset([nested])
    """,
    "hash of nested dataclasses": """
        import dataclasses
        @dataclasses.dataclass(frozen=True)
        class Node:
            inner: object
        nested = None
        for _ in range(20_000):
            nested = Node(nested)
        def program():
            hash(nested)
    """,
    "isinstance with nested tuples": """
        nested = (str,)
        for _ in range(20_000):
            nested = (nested,)
        def program():
            isinstance(1, nested)
    """,
    "recursion in __hash__": """
        class Endless:
            def __hash__(self):
                return hash((Endless(),))
        def program():
            hash(Endless())
    """,
    "recursion in __lt__": """
        class Endless:
            def __lt__(self, other):
                return sorted([Endless(), Endless()])
        def program():
            sorted([Endless(), Endless()])
    """,
    "recursion in __getattribute__": """
        class Endless:
            def __getattribute__(self, name):
                return self.other
        def program():
            Endless().value
    """,
    "recursion in a descriptor that C calls": """
        class Endless:
            def __get__(self, instance, owner):
                return getattr(owner, "itself")
        class Owner:
            itself = Endless()
        def program():
            Owner.itself
    """,
    "recursion in __set_name__": """
        class Endless:
            def __set_name__(self, owner, name):
                program()
        def program():
            type("Made", (), {"value": Endless()})
    """,
    "recursion in __instancecheck__": """
        class Kind(type):
            def __instancecheck__(self, other):
                return isinstance(other, (Endless,))
        class Endless(metaclass=Kind):
            pass
        def program():
            isinstance(1, Endless)
    """,
    "recursion in __missing__": """
        class Endless(dict):
            def __missing__(self, key):
                return self[key]
        def program():
            Endless()[1]
    """,
    "recursion in a weak reference's callback": """
        import weakref
        class Node:
            pass
        nodes = [Node() for _ in range(20_000)]
        references = [weakref.ref(node, lambda _: nodes and nodes.pop()) for node in nodes]
        def program():
            nodes and nodes.pop()
    """,
    "a chain of generators": """
        chain = iter(range(9))
        for _ in range(20_000):
            chain = (each for each in chain)
        def program():
            next(chain, None)
    """,
    "a chain of generators by yield from": """
        def pass_on(inner):
            yield from inner
        chain = iter(range(9))
        for _ in range(20_000):
            chain = pass_on(chain)
        def program():
            next(chain, None)
    """,
    "a chain of coroutines": """
        async def wait():
            await wait()
        def program():
            wait().send(None)
    """,
    "a chain of maps": """
        def make(inner):
            return map(abs, inner)
        def program():
            chain = iter(range(9))
            for _ in range(200_000):
                chain = make(chain)
            next(chain)
    """,
    "release of a chain of exceptions": """
        def program():
            chain = None
            for _ in range(50_000):
                error = KeyError()
                error.__context__ = chain
                chain = error
            del chain, error
    """,
    "a C function that asks the interpreter": """
        def program():
            overflow.ask_and_descend()
    """,
    "a C function that calls Python": """
        def program():
            overflow.call(program)
    """,
    "a C function with small frames": """
        def program():
            overflow.descend(16)
    """,
    "a C function with usual frames": """
        def program():
            overflow.descend(1024)
    """,
    "a C function with large frames": """
        def program():
            overflow.descend(15_000)
    """,
}

ALL_PROGRAMS: Mapping[str, str] = {**PROGRAMS, **MORE_PROGRAMS}
