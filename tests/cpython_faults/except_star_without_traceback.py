"""`except*` takes for granted that the exception has a traceback, which the program may remove.

_PyExc_PrepReraiseStar() asserts it. Seen with debug builds of 3.14 and 3.15, which abort.
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
