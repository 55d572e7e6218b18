#!/bin/sh
# Fuzz the C core with libFuzzer, each harness for SECONDS (default 60) from a new seed; or, so that a check of a release
# has the same outcome whenever it runs, for COUNT inputs from one seed: run.sh fixed COUNT. New inputs go to a scratch
# folder; merge those that reach new code into corpus/ by: run.sh merge FOLDER. Needs clang with libFuzzer (Debian: clang libclang-rt-14-dev).
# Exits non-zero on any finding; the input that shows it is left in the scratch folder, which is printed.
set -eu
cd "$(dirname "$0")"
CLANG=${CLANG:-clang}
SCRATCH=${SCRATCH:-$(mktemp -d)}
command -v "$CLANG" >/dev/null || { echo "no $CLANG: install clang with libFuzzer" >&2; exit 2; }

extent="-max_total_time=${1:-60}"
[ "${1:-}" != fixed ] || extent="-seed=1 -runs=$2"

for harness in fuzz_open fuzz_open_packet fuzz_seal fuzz_sockets fuzz_graph fuzz_text; do
    "$CLANG" -std=c11 -g -O1 -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        -Wall -Wextra -I.. -o "$SCRATCH/$harness" "$harness.c" ciphers.c ../wire/*.c ../graph/*.c ../text/*.c ../rich/*.c \
        ../list/*.c -ldl
    if [ "${1:-}" = merge ]; then
        "$SCRATCH/$harness" -merge=1 "corpus/$harness" "$2/found_$harness"
        continue
    fi
    mkdir -p "$SCRATCH/found_$harness"
    # shellcheck disable=SC2086 # two options
    "$SCRATCH/$harness" $extent -max_len=3000 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$SCRATCH/" "$SCRATCH/found_$harness" "corpus/$harness" 2>"$SCRATCH/$harness.log" || {
        tail -50 "$SCRATCH/$harness.log" >&2
        echo "$harness: a finding; see $SCRATCH" >&2
        exit 1
    }
    grep -E 'number_of_executed_units|new_units_added' "$SCRATCH/$harness.log" | sed "s/^/$harness /"
done
echo "no finding; new inputs in $SCRATCH"
