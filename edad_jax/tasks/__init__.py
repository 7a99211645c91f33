# SPDX-License-Identifier: Apache-2.0
"""Tasks that a student is fine-tuned for: rows, tuning, scores."""
