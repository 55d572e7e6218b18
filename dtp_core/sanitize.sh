#!/bin/sh
# Build the C core with every warning as an error, then run its harnesses under AddressSanitizer and UBSan on the
# kept corpus and on COUNT random inputs (default 20000), the same ones every time. Needs gcc or clang ($CC) and
# libcrypto.so.3 at run time. Exits non-zero on any finding.
set -eu
cd "$(dirname "$0")"
CC=${CC:-gcc}
COUNT=${1:-20000}
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT

STRICT="-std=c11 -Wall -Wextra -Wconversion -Wshadow -Wpedantic -Wstrict-prototypes -Wmissing-prototypes -Werror"
CORE="wire/*.c graph/*.c text/*.c rich/*.c list/*.c"
for file in $CORE fuzz/*.c; do
    "$CC" $STRICT -I. -O2 -c -o "$OUT/warnings.o" "$file"
done

for harness in fuzz_open fuzz_open_packet fuzz_seal fuzz_sockets fuzz_graph fuzz_text; do
    "$CC" $STRICT -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all \
        -I. -o "$OUT/$harness" "fuzz/$harness.c" fuzz/ciphers.c fuzz/standalone.c $CORE -ldl
    ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
        "$OUT/$harness" "$COUNT" "fuzz/corpus/$harness"/*
done
echo "clean"
