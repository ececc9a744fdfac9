"""What is not tested on Windows, as data: the reason for each file, and for each group of tests.

tools/windows_test.py leaves the files out, and conftest.py skips the tests. "Wine" in a reason: it
might pass on a real Windows.
"""

from __future__ import annotations

from collections.abc import Mapping

DEBUGGERS = "reads ELF files and /proc, or runs gdb"
NO_DISTRIBUTION = "what CMake installs is tested: no wheel, and so no metadata"
NO_COMPILER = "runs a compiler, and under Wine there is none"
DISK = "Windows has no file like /dev/full"
ECHO_SERVER = "the server raises RLIMIT_NOFILE and reads /proc"
RUNTIME = "reads /proc; test_windows.py has the same for Windows"
FREEZING = "code is not listed on Windows, so nothing is frozen there"
ELF = "looks into an ELF file"
FORK = "Windows has no fork()"
SIGNALS = "Windows has no signals that one process, or thread, sends to another"
ADDRESS_SPACE = "Windows does not tell a process how much address space it has reserved"
MAPPINGS = "under Wine each stack takes two or three mappings, and Linux allows a process 65,530"
MAIN_STACK = "the linker decides on the size of the main thread's stack, not a limit"
PRELOADS = "puts functions in place of the C library's, by means of ELF"

FILES: Mapping[str, str] = {
    "test_architecture.py": "is about the sources, and tested on Linux",
    "test_building.py": NO_COMPILER,
    "test_debuggers.py": DEBUGGERS,
    "test_documents.py": "is about the documents, and tested on Linux",
    "test_failures.py": PRELOADS,
    "test_gdb.py": DEBUGGERS,
    "test_jit.py": "these interpreters have no JIT",
    "test_limits.py": "Windows has no limits as those of setrlimit()",
    "test_outside.py": DEBUGGERS,
    "test_outside_hostile.py": DEBUGGERS,
    "test_overflow.py": "reports of faults are not there yet, and the tests know signals only",
    "test_processes.py": FORK,
    "test_signals.py": SIGNALS,
    "test_timeline_page.py": "there is no browser under Wine; the page is the same on Linux",
}

# Patterns of what stands behind tests/python/ in the name of a test.
TESTS: Mapping[str, str] = {
    "test_c_api.py::test_a_cpp_runtime_may_be_loaded_when_greenlets_have_switched*": RUNTIME,
    "test_c_api.py::test_the_header_is_valid_in*": NO_COMPILER,
    "test_creation.py::test_a_process_forked_*": FORK,
    "test_creation.py::test_each_function_works_*[_dump_on_signal*": SIGNALS,
    "test_examples.py::test_the_echo_server_*": ECHO_SERVER,
    "test_freezing.py::test_a_part_of_the_suite_*": FREEZING,
    "test_freezing.py::test_the_mode_freezes_*": FREEZING,
    "test_inspect.py::test_a_signal_dumps_*": SIGNALS,
    "test_inspect.py::test_dumps_while_threads_switch_start_and_end": SIGNALS,
    "test_inspect_hostile.py::test_a_watch_may_be_stopped_in_a_fork": FORK,
    "test_inspect_hostile.py::test_a_signal_dumps_*": SIGNALS,
    "test_inspect_hostile.py::test_a_dump_without_stderr_says_so": SIGNALS,
    "test_inspect_hostile.py::test_signals_of_crashes_do_not_dump*": SIGNALS,
    "test_package.py::test_all_headers_are_the_same": NO_DISTRIBUTION,
    "test_package.py::test_an_attribute_tells_which_implementation_this_is": NO_DISTRIBUTION,
    "test_package.py::test_the_bill_of_materials_*": NO_DISTRIBUTION,
    "test_package.py::test_the_distribution_installs_*": NO_DISTRIBUTION,
    "test_package.py::test_the_extension_is_hardened": ELF,
    "test_package.py::test_the_extension_needs_the_c_library_and_no_other": ELF,
    "test_package.py::test_the_header_compiles_*": NO_COMPILER,
    "test_package.py::test_the_package_needs_no_other_distribution": NO_DISTRIBUTION,
    "test_package.py::test_the_version_is_that_of_the_distribution": NO_DISTRIBUTION,
    "test_recursion.py::test_a_main_thread_whose_stack_becomes_larger_*": MAIN_STACK,
    "test_recursion.py::test_an_unlimited_main_stack_*": MAIN_STACK,
    "test_recursion.py::test_recursion_that_works_in_a_main_thread_*": MAIN_STACK,
    "test_recursion.py::test_recursion_that_works_in_a_thread_with_a_large_stack_*": MAIN_STACK,
    "test_shutdown.py::test_keyboard_interrupt_in_a_greenlet_ends_the_program": SIGNALS,
    "test_shutdown.py::*forked_child*": FORK,
    "test_stacks.py::test_a_greenlet_with_a_small_stack_has_no_more": ADDRESS_SPACE,
    "test_stacks.py::test_fifty_thousand_greenlets_*": MAPPINGS,
    "test_stacks.py::test_the_size_of_one_greenlet_may_be_taken_back": ADDRESS_SPACE,
    "test_thread_end.py::*foreign_thread*": NO_COMPILER,
    "test_thread_stack.py::test_a_child_forked_*": FORK,
    "test_timeline.py::test_a_fork_is_not_*": FORK,
    "test_timeline.py::test_forks_during_a_storm": FORK,
    "test_timeline_command.py::test_a_disk_that_is_full_is_told": DISK,
    "test_timeline_command.py::test_a_server_is_ended_by_a_signal": SIGNALS,
    "test_timeline_command.py::test_the_exit_status_*os.kill*": SIGNALS,
    "test_timeline_command.py::test_children_of_the_program_*": FORK,
    "test_thread_stack.py::test_a_signal_handler_that_switches_*": SIGNALS,
}
