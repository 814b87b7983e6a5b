"""Collections behind HTTP: search, compare, add and remove for programs, a page for people."""

from vit4icd.service.app import create_app
from vit4icd.service.backup import back_up
from vit4icd.service.keys import Keys, Scope, make_key, read_keys
from vit4icd.service.processes import serve_together
from vit4icd.service.server import is_loopback, require_safe, serve
from vit4icd.service.state import ServiceConfig, State
from vit4icd.service.uploads import Limits

__all__ = [
    "Keys",
    "Limits",
    "Scope",
    "ServiceConfig",
    "State",
    "back_up",
    "create_app",
    "is_loopback",
    "make_key",
    "read_keys",
    "require_safe",
    "serve",
    "serve_together",
]
