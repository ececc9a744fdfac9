"""Functions of the module ``_thread`` as they are when greenlet is imported.

gevent and eventlet replace them by functions that make and wait for greenlets, and they import
greenlet before. What needs a thread of the system takes them from here.
"""

from _thread import TIMEOUT_MAX, allocate_lock, get_ident, start_new_thread

__all__ = ["TIMEOUT_MAX", "allocate_lock", "get_ident", "start_new_thread"]
