"""The daemon as a service of the system: which files it needs where, and the steps that put them there or away.

A plan is made first and carried out afterwards, step by step, so that it can be shown before anything happens. What an
operator has edited is never overwritten. The files themselves are those of systemd/ at the project's root, which the
Debian package installs too.
"""

from llmpower.service.commands import call
from llmpower.service.files import SHIPPED, UNIT, Shipped, content
from llmpower.service.installing import check_permission, default_program, plan_install
from llmpower.service.state import FileState, Installation, look
from llmpower.service.step import Step
from llmpower.service.uninstalling import plan_uninstall

__all__ = [
    "SHIPPED",
    "UNIT",
    "FileState",
    "Installation",
    "Shipped",
    "Step",
    "call",
    "check_permission",
    "content",
    "default_program",
    "look",
    "plan_install",
    "plan_uninstall",
]
