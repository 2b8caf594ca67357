"""The command ``trickbag``, and ``python -m trickbag``: signals are heard before anything large is imported."""

from trickbag.terminal.start import begin


def main() -> None:
    """Run the command line."""
    begin(_verbs)


def _verbs() -> None:
    from trickbag.terminal.cli import app

    app()


if __name__ == "__main__":
    main()
