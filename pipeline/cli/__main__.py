"""`python -m pipeline.cli`: the command `rlaif` without an installed script."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
