"""The program's start: Ctrl-C while Python still imports the command line prints no traceback either."""

from __future__ import annotations

import signal


def main() -> None:
    """Entry point of the ``llmpower`` console script, and of ``python -m llmpower``.

    Until somebody is there to catch ``KeyboardInterrupt``, SIGINT ends the process as it ends any other; where it is
    ignored (``nohup … &``) it stays so.
    """
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from llmpower.cli.main import main as run

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
