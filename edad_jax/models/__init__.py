# SPDX-License-Identifier: Apache-2.0
"""The nets: BERT, exBERT, their heads, and their weights on disk."""
