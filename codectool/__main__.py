"""Run the command line with `python -m codectool`."""

from codectool.cli import main

if __name__ == "__main__":
    main()
