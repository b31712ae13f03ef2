"""`sluicegate` and `python -m sluicegate`: the command line."""


def main() -> None:
    """Run the command line."""
    from sluicegate.cli import app  # noqa: PLC0415 (nothing else of this module may import typer)

    app()


if __name__ == "__main__":
    main()
