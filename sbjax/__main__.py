"""`python -m sbjax COMMAND`, the same as `sbjax COMMAND`."""

from sbjax.runner.commands import main

if __name__ == "__main__":
    main()
