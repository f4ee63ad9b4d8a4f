"""The `gazecore` command: hands over to one of the jobs."""

import contextlib
import importlib
import os
import sys

COMMANDS = {
    "score": "score an image collection: a density and statistics for every image",
    "predict": "a few images, no cluster: overlays and numbers",
    "status": "how far a run is",
    "verify": "check that a run holds what it promises",
    "report": "a page to look at a run: what failed, distributions, extremes, every image",
    "query": "SQL over a run",
    "compact": "a run's rows as a few large files, for fast answers",
    "evaluate": "judge a model, or a run, by recorded fixations",
    "regions": "how much of the fixations falls on boxes, polygons and masks",
    "crop": "where to crop images so that most of the fixations are kept",
    "compare": "how two runs differ: two models, or two versions of images",
    "export": "densities or a corpus for other programs: pysaliency's HDF5, PNG maps",
    "models": "what a model bundle holds",
    "ingest": "import recorded fixations as a corpus",
    "features": "compute the backbone's features of a corpus, once",
    "train": "train a readout on cached features",
}


def main() -> None:
    """Run `gazecore COMMAND ...`."""
    if sys.stdout is None:  # it was closed: what nobody reads is no mistake
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        _dispatch()
    except KeyboardInterrupt:  # while a command was imported
        print("gazecore: interrupted", file=sys.stderr)
        sys.exit(130)


def run() -> None:
    """`main`, and the process ends with it: no thread that was left at work is waited for after an
    interruption, and no library has a last word on stderr."""
    code: object = 0
    try:
        try:
            main()
        except SystemExit as end:
            code = end.code
        if not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        pass  # nobody reads it any more
    except OSError as error:
        if not code:  # else it has been said
            print(f"gazecore: standard output: {error.strerror}", file=sys.stderr)
            code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _dispatch() -> None:
    name, rest = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if name in ("-h", "--help"):
        print(
            "usage: gazecore COMMAND ...\n\nPredicts where people look, for image collections of "
            "any size.\n"
        )
        for command, text in COMMANDS.items():
            print(f"  {command:<10} {text}")
        print("\n`gazecore COMMAND --help` explains a command.")
    elif name == "--version":
        import gazecore

        print(gazecore.__version__)
    elif name in COMMANDS:
        importlib.import_module(f"jobs.{name}").main(rest)
    else:
        print(
            f"gazecore: there is no command {name!r}; it is one of {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    run()
