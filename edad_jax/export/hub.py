# SPDX-License-Identifier: Apache-2.0
"""An exported folder as a repository of the Hugging Face hub."""

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


def check_push(repository: str) -> None:
    """Raises ValueError for a name that the hub would not take, and where no token is at hand.

    Nothing is sent.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(
            f"--push_to_hub: got {repository!r}, expected USER/NAME ({error})"
        ) from error
    if repository.count("/") != 1:
        raise ValueError(f"--push_to_hub: got {repository!r}, expected USER/NAME")
    if not huggingface_hub.get_token():
        raise ValueError(
            "--push_to_hub: no token of the hub is at hand; run `hf auth login`, or set HF_TOKEN"
        )


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Returns the address of the repository, which now has the folder's files.

    Args:
      folder: what was exported.
      repository: USER/NAME; made where there is none.
      private: whether one that is made is for its owner alone.

    Raises:
      ValueError: as `check_push`; or the hub refuses or cannot be reached, and says why.
    """
    check_push(repository)
    api = huggingface_hub.HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder))
    except Exception as error:  # the client's errors, by its version, have no common parent
        raise ValueError(f"--push_to_hub: {repository} cannot be written: {error}") from error
    return str(address)
