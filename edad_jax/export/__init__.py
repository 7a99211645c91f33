# SPDX-License-Identifier: Apache-2.0
"""Trained models as files that other tools read."""
