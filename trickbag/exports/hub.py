"""A folder on the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from trickbag.ground.errors import TrickbagError, UsageError
from trickbag.ground.text import brief

LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may write."


def check(name: str) -> None:
    """Raise UsageError where a name is none that the hub has, or nobody is logged in, before work that is to be pushed."""
    try:
        validate_repo_id(name)
        named = name.count("/") == 1
    except HFValidationError:
        named = False
    if not named:
        raise UsageError(f"--push {brief(name)}: write USER/NAME, as in ada/shoes.")
    if not get_token():
        raise UsageError(f"--push needs a token of the hub, and there is none. {LOG_IN}")


def push(folder: Path, files: Sequence[str], name: str) -> str:
    """Put files of a folder into a repository of the hub, which is made where it is missing; its address.

    Raises TrickbagError where the hub refuses or cannot be reached.
    """
    api = HfApi()
    try:
        place = api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=list(files), commit_message="Upload by trickbag")
    except HfHubHTTPError as error:
        code = error.response.status_code
        said = (error.server_message or str(error)).strip().partition("\n")[0][:200]
        reason = {
            401: f"it does not know the token. {LOG_IN}",
            403: f"the token may not write there. {LOG_IN}",
        }.get(code, f"it answers {code} ({said}). Try again later.")
        raise TrickbagError(f"the hub did not take {name}: {reason} The folder {folder} is finished.") from error
    except Exception as error:
        raise TrickbagError(
            f"the hub at {api.endpoint} cannot be reached ({str(error)[:200]}). The folder {folder} is finished."
        ) from error
    return str(place)
