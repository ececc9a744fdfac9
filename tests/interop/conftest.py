"""Our wheel with the projects that depend on greenlet.

- `test_*.py` here are quick: `make test` runs them. `environment.py` makes their environments;
  `programs/` has the programs that they run there.
- `dependents/` has tests for dependents that publish no suite of their own, and programs that
  measure what dependents do per second. `make interop` and `make interop-load` run them, with the
  published greenlet and with ours. tools/dependents makes their environments.
"""

collect_ignore = ["dependents"]
