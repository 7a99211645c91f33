# SPDX-License-Identifier: Apache-2.0
"""The chain of launch/pipeline.py: the commands from text to a model in service, and its report."""
