"""Run the command line with `python -m codectool`."""

from codectool.cli import run

if __name__ == "__main__":
    run()
