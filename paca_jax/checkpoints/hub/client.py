"""The client of the Hugging Face Hub, which is imported when it is needed; its errors as sentences."""

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from paca_jax.errors import UserError, check_installed, summary

REPOSITORY = r"\w[\w.-]*/\w[\w.-]*"
_LOG_IN = "log in with hf auth login or HF_TOKEN"


class UnreachableError(UserError):
    """An error of the network, or of a server that is down: what was downloaded earlier may still be in the cache."""


def import_client() -> Any:
    """Returns the module `huggingface_hub`, with its `constants` and `errors`.

    Raises:
        UserError: if it is not installed.
    """
    modules = ("huggingface_hub.constants", "huggingface_hub.errors")
    check_installed("The Hugging Face Hub", modules, "pip install paca-jax[hub]")
    return importlib.import_module("huggingface_hub")


def check_repository(repository: object) -> str:
    """Returns the name of a repository of the Hub.

    Raises:
        UserError: if it is not OWNER/NAME.
    """
    if not isinstance(repository, str) or not re.fullmatch(REPOSITORY, repository, re.ASCII):
        raise UserError(f"Expected a repository of the Hugging Face Hub, OWNER/NAME, got {repository!r}. Correct it.")
    return repository


@contextmanager
def hub_errors(repository: str, revision: str | None = None) -> Iterator[None]:
    """Returns a context in which errors of the client become a `UserError`, an `UnreachableError` if the Hub is not there.

    Args:
        repository: the repository that is asked for, OWNER/NAME.
        revision: the revision that is asked for, if one is.
    """
    hub = import_client()
    errors, endpoint = hub.errors, hub.constants.ENDPOINT
    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError as error:
        raise UserError(
            f"Expected access to {endpoint}/{repository}, got a refusal: its owner grants access on request. Request it "
            f"there, and {_LOG_IN}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"Expected a repository of models at {endpoint}/{repository}, got none, or a private one of others. Check the "
            f"name, or {_LOG_IN}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"Expected a branch, tag or commit of {endpoint}/{repository}, got {revision!r}, which it does not have. Check it."
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        answer = f"the status {status} ({error.server_message or summary(error)})"
        if status in (401, 403):
            raise UserError(
                f"Expected permission at {endpoint}/{repository}, got {answer}. Check the owner, or {_LOG_IN}."
            ) from error
        kind = UnreachableError if status == 429 or status >= 500 else UserError
        raise kind(f"Expected an answer about {endpoint}/{repository}, got {answer}. Try again later.") from error
    except (errors.HTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise UnreachableError(
            f"Expected to reach {endpoint} for {repository}, got: {summary(error)}. Check the network."
        ) from error
    except (OSError, RuntimeError, ValueError) as error:  # of the disk, of a proxy, of an answer that is none of the Hub's
        raise UserError(
            f"Expected to exchange files with {endpoint}/{repository}, got: {summary(error)}. Correct that."
        ) from error
