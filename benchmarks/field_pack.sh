#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packs what travels to a borrowed GPU machine, in parts under 60 MB with checksums. --help says all.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" benchmarks/field_pack.py "$@"
