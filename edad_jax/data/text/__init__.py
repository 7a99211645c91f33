# SPDX-License-Identifier: Apache-2.0
"""Documents out of files, archives, data sets and packages, as text."""
