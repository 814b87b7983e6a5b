"""The verb of the service: collections behind HTTP, and keys to it."""

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from vit4icd.cli.arguments import Flag, MaybeCount, MaybeDevice, MaybePath
from vit4icd.cli.options import Options, open_describer, require_counts, settled
from vit4icd.cli.terminal import say
from vit4icd.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from vit4icd.service import ServiceConfig

__all__ = ["serve"]

_LAST_PORT = 65_535
_NEEDS = ("fastapi", "uvicorn", "jinja2", "prometheus_client", "python_multipart")

Places = Annotated[
    Positional[tuple[str, ...]], tyro.conf.arg(metavar="[COLLECTION ...]", help_behavior_hint="")
]


def serve(
    collections: Places = (),
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8400,
    keys: MaybePath = None,
    make_key: Literal["read", "admin"] | None = None,
    backup: MaybePath = None,
    create: Flag = False,
    allow_urls: Flag = False,
    data: MaybePath = None,
    pictures: MaybePath = None,
    max_mib: int = 32,
    max_pixels: int = 64_000_000,
    max_waiting: int = 128,
    workers: int = 1,
    model: MaybePath = None,
    device: MaybeDevice = None,
    threads: MaybeCount = None,
    quiet: Flag = False,
) -> int:
    """Serve collections over HTTP, with a page on which people judge matches.

    Args:
        collections: Folders or addresses of collections; NAME=PLACE gives another name.
        host: Address to listen on; other than loopback needs --keys.
        port: Port to listen on; 0 takes a free one.
        keys: File of keys, one line each, as --make-key prints them.
        make_key: Print a new key to stderr, its line for the file to stdout, and end.
        backup: Copy decisions, queue and previews to this new folder, also while the service
            runs, and end.
        create: Make collections that are not there yet.
        allow_urls: Fetch pictures from URLs that clients send; from public hosts only.
        data: Folder for previews, decisions and jobs; COLLECTION.service by default.
        pictures: Folder below which files of references may be opened, to show them.
        max_mib: Refuse pictures of more MiB.
        max_pixels: Refuse pictures of more pixels, before decoding them.
        max_waiting: Requests that may wait for the engine; further ones get 429.
        workers: Processes that serve together; one that ends unasked is replaced.
        model: Model folder; the packaged model by default.
        device: Where the model runs.
        threads: Processors the model may use; all this process may use by default.
        quiet: No remarks.
    """
    for needed in _NEEDS:
        if importlib.util.find_spec(needed) is None:
            raise MissingExtraError(needed, "service")
    options = settled(model, device, threads)
    from vit4icd import service

    if make_key is not None:
        return _make_key(make_key)
    if backup is not None:
        return _back_up(service.ServiceConfig(collections=collections, data=data), backup, quiet)
    require_counts(max_mib=max_mib, max_pixels=max_pixels, max_waiting=max_waiting, workers=workers)
    if not 0 <= port <= _LAST_PORT:
        raise ConfigError(f"--port lies between 0 and {_LAST_PORT}, not {port}")
    known = None if keys is None else service.read_keys(keys)
    service.require_safe(host, known)
    config = service.ServiceConfig(
        collections=collections,
        data=data,
        pictures=pictures,
        host=host,
        keys=known,
        create=create,
        allow_urls=allow_urls,
        limits=service.Limits(max_bytes=max_mib * 2**20, max_pixels=max_pixels),
        max_waiting=max_waiting,
        n_processes=workers,
    )
    _run(config, options, port, quiet)
    return 0


def _run(config: "ServiceConfig", options: Options, port: int, quiet: bool) -> None:
    from vit4icd import service
    from vit4icd.describer import available_threads

    def tell(bound: int) -> None:
        shown = f"[{config.host}]" if ":" in config.host else config.host
        say(quiet, f"serving on http://{shown}:{bound}/")

    if config.n_processes == 1:
        app = service.create_app(config, open_describer(options))
        service.serve(app, host=config.host, port=port, on_start=tell)
        return
    n_threads = options.threads or max(1, available_threads() // config.n_processes)
    opened = partial(open_describer, replace(options, threads=n_threads))
    service.serve_together(config, opened, port=port, on_start=tell)


def _back_up(config: "ServiceConfig", out: Path, quiet: bool) -> int:
    from vit4icd.service import back_up

    n_previews = back_up(config.folder, out)
    say(quiet, f"{out}: decisions, queue and {n_previews} previews of {config.folder}")
    return 0


def _make_key(scope: Literal["read", "admin"]) -> int:
    from vit4icd.service import make_key

    key, line = make_key(scope)
    say(False, f"the key, shown this once: {key}")
    print(line)
    return 0
