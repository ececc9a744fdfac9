"""Storms: programs that do one kind of thing at random, for long, and check what comes out.

`python -m storms SECONDS` in the folder above runs all of them, each in a process of its own;
__main__.py has the options. Each storm is a module here, with a function `run(storm)`.
"""
