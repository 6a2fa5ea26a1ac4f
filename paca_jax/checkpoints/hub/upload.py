"""Uploading the folder of a repository to the Hugging Face Hub."""

import os
from pathlib import Path

from paca_jax.checkpoints.hub.client import check_repository, hub_errors, import_client
from paca_jax.errors import UserError


def check_login(repository: str) -> None:
    """Checks that a folder could be uploaded, as far as that is known on this machine.

    Raises:
        UserError: if the repository is not OWNER/NAME, `huggingface_hub` is not installed, or there is no token.
    """
    check_repository(repository)
    hub = import_client()
    with hub_errors(repository):
        token = hub.get_token()
    if not token:
        raise UserError(
            f"Expected a token of {hub.constants.ENDPOINT} that may write, got none. Run hf auth login, or set HF_TOKEN."
        )


def upload_hub_folder(
    folder: str | os.PathLike[str], repository: str, *, message: str, private: bool = False, branch: str | None = None
) -> str:
    """Uploads the files of a folder in one commit, and returns the address of the commit.

    Makes the repository and the branch if they are not there. Files of the same names are replaced, others stay; the versions
    before are in the repository's history. The token and the address of the Hub are those of `huggingface_hub`.

    Args:
        folder: the folder, as `write_hub_folder` writes it.
        repository: the repository, OWNER/NAME.
        message: the first line of the commit's message.
        private: whether a new repository is private. A public one is refused then.
        branch: the branch to commit to; None for the main one.

    Raises:
        UserError: if the Hub cannot be reached or refuses, or the repository is public and a private one is asked for.
    """
    check_login(repository)
    hub = import_client()
    with hub_errors(repository, branch):
        api = hub.HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise UserError(
                f"Expected a private repository, got {repository}, which is public already. Make it private at "
                f"{hub.constants.ENDPOINT}/{repository}/settings, or leave private out."
            )
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        operations = [hub.CommitOperationAdd(path.name, str(path)) for path in sorted(Path(folder).iterdir())]
        return str(api.create_commit(repository, operations, commit_message=message, revision=branch).commit_url)
