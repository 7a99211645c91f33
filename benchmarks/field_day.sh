#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Minutes on a borrowed GPU: checks what travelled, then runs the parts of the day. --help says all.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" benchmarks/field_day.py "$@"
