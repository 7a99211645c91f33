# SPDX-License-Identifier: Apache-2.0
"""What training and fine-tuning share: devices, optimisers, checkpoints, metrics, progress."""
