"""The command line: Click, one file per command, no maths.

Each command's module is imported only when that command runs or shows its help, so ``llmpower --help`` and
``llmpower status`` cost what Click costs.
"""
