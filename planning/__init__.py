# SPDX-License-Identifier: Apache-2.0
"""What a run would take, told before it begins: `--plan` of train.py, pipeline.py, prepare.py."""
