# SPDX-License-Identifier: Apache-2.0
"""Labelled examples out of files and data sets."""
