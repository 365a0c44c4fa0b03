"""`python -m whyprune` is the command line."""

from whyprune.cli import main

if __name__ == "__main__":
    main()
