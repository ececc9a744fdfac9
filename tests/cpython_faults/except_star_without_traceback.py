"""`except*` takes for granted that the exception has a traceback, which the program may remove.

_PyExc_PrepReraiseStar() asserts it. Debug builds of 3.11 to 3.15 abort.
"""

error = ValueError()


def forget():
    error.__traceback__ = None
    return TypeError


try:
    try:
        raise error
    except* forget():
        pass
except* ValueError:
    pass
print("nothing happened")
