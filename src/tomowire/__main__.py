"""`python -m tomowire`: the commands, where the script `tomowire` is not on the path."""

from __future__ import annotations

from tomowire.cli.main import main

if __name__ == "__main__":
    main(prog_name="tomowire")
