# SPDX-License-Identifier: Apache-2.0
"""Exported models at work: numpy, onnxruntime and tokenizers alone."""
