#!/usr/bin/env bash
# The GPU tests and benchmarks on one CUDA device, without Ray: about five minutes.
#
#   bash tests/gpu/run.sh [FILE.md] [--part NAME ...] [--dry]
#
# FILE.md gets the table. --dry runs tiny forms of all parts on a CPU, in under a minute.
# PYTHON names the interpreter (default: python3); exit status 1 if a part failed.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
# cuBLAS reads it at its first product in a process.
export CUBLAS_WORKSPACE_CONFIG="${CUBLAS_WORKSPACE_CONFIG:-:4096:8}"
exec "${PYTHON:-python3}" -m tests.gpu.run "$@"
