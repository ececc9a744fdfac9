"""The suites of programs that depend on greenlet, run with the published one and with ours.

    catalog.py      what is run: each suite's packages, command and limits
    environment.py  two environments that differ in the greenlet alone; source distributions
    running.py      one suite on one side, to its end or to its time limit
    recorder/       what is put on PYTHONPATH of a suite, to write down how each test went
    results.py      how tests went over runs, kept as JSON in tests/interop/results
    table.py        the table in docs/compatibility.md, generated from these

tools/interop.py is the command.
"""
