# SPDX-License-Identifier: Apache-2.0
"""Teacher and student: losses, the fused step, its kin, and the training run."""
