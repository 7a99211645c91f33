#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A day with a borrowed GPU: checks and unpacks what travelled, then runs the parts. --help says all.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
PARTS=${FIELD_PARTS:-}     # folder of the parts that arrived, as field_pack.sh made them
PLACE=${FIELD_PLACE:-/tmp/field-pack}    # where they are unpacked
if [ -n "$PARTS" ]; then
  # Before the first second is spent: every checksum, and whether all parts are here.
  PYTHONPATH=$PWD "$PYTHON" benchmarks/field_pack.py arrive --from "$PARTS" --to "$PLACE" || exit 3
  export PYTHONPATH="$PLACE/site${PYTHONPATH:+:$PYTHONPATH}"
  set -- --pack "$PLACE" "$@"
fi
exec "$PYTHON" benchmarks/field_day.py "$@"
