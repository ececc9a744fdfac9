#!/bin/sh
# Builds and runs the native unit tests: tests/native/run.sh [WAY...]
#   --native    (the default) as the module is built
#   --address   under AddressSanitizer and UndefinedBehaviorSanitizer
#   --thread    under ThreadSanitizer
#   --aarch64   cross-compiled for AArch64, under qemu-user
#   --all       all of these
# Build folders are build/native-tests*; JOBS says how much to do at once.
set -eu
cd "$(dirname "$0")/../.."
jobs=${JOBS:-2}

run() { # NAME [CMAKE ARGUMENT...]: through "$launcher"
    folder=build/native-tests$1
    shift
    echo "== $folder"
    cmake -S tests/native -B "$folder" "$@" >"$folder.log" 2>&1 ||
        { cat "$folder.log"; exit 1; }
    cmake --build "$folder" -j "$jobs" >>"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
    $launcher ctest --test-dir "$folder" --output-on-failure -j "$jobs"
}

way() {
    launcher=
    case $1 in
    --native) run "" ;;
    --address)
        # The stacks of contexts hold what only they point to, and no thread scans them for leaks.
        export ASAN_OPTIONS="detect_stack_use_after_return=1:${ASAN_OPTIONS:-}"
        run -address -DGREENLET_SANITIZE='address;undefined'
        ;;
    --thread)
        # Its shadow memory has no place for mappings that randomization puts far away.
        launcher="setarch -R"
        run -thread -DGREENLET_SANITIZE=thread
        ;;
    --aarch64) run -aarch64 -DCMAKE_TOOLCHAIN_FILE="$PWD/tools/toolchains/aarch64-linux-gnu.cmake" ;;
    --all) for each in --native --address --thread --aarch64; do way $each; done ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
}

mkdir -p build
[ $# -gt 0 ] || set -- --native
for argument; do way "$argument"; done
