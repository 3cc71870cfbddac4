#!/bin/sh
# The compiler of `cargo xtask fuzz`: netflow's own library is built to be fuzzed, everything else is what other builds use.
# Coverage of edges and comparisons as libFuzzer reads it: what cargo-fuzz asks for, all of it stable. Not optimised, so that
# it is built in a minute and an overflow panics as in a test.
case "$*" in
*"--crate-name netflow_user "*)
    exec "$@" --cfg fuzzing \
        -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*)
    exec "$@"
    ;;
esac
