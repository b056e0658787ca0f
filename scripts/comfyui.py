#!/usr/bin/env python3
"""A real ComfyUI with this pack in it, set up with nothing but Python and pip.

    python3 scripts/comfyui.py run workflows/image_to_video.json --set "Sampler.seed=7"
    python3 scripts/comfyui.py serve
    python3 scripts/comfyui.py exec dreamvideo --help
    python3 scripts/comfyui.py test -k guidance

It sets up an environment and a pinned ComfyUI below `.host/`, once. Set COMFYUI_PATH to use your own ComfyUI instead; nothing
is written there.
"""

import argparse
import signal
import sys
from pathlib import Path

from comfy_host import environment, frontends, releases
from comfy_host.console import print_anything, say
from comfy_host.errors import HostError


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status."""
    print_anything()
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _exit_on_signal)
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except HostError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def run(options: argparse.Namespace) -> None:
    """Run a workflow file and print what it gave."""
    comfyui = _enter(options.comfyui_version)
    from comfy_host import runner

    report = runner.run(comfyui, options.workflow, options.set, options.output, options.frontend)
    print(report.text(), flush=True)


def serve(options: argparse.Namespace) -> None:
    """Start ComfyUI for a person and stay until interrupted."""
    comfyui = _enter(options.comfyui_version)
    from comfy_host import runner

    with runner.start(comfyui, port=options.port, frontend=options.frontend) as server:
        print(server.url, flush=True)
        say("press Ctrl-C to stop")
        server.wait()


def execute(options: argparse.Namespace) -> None:
    """Run a command inside the environment."""
    if not options.arguments:
        raise HostError("exec needs a command to run")
    environment.prepare(releases.locate())
    environment.execute(options.arguments)


def test(options: argparse.Namespace) -> None:
    """Run the tests inside the environment, against both pinned releases and the newest frontend."""
    for release in releases.PINNED.values():
        releases.fetch(release)
    for version in frontends.PINNED:
        frontends.fetch(version)
    environment.prepare(releases.locate())
    environment.execute(["pytest", *options.arguments])


def _enter(version: str | None) -> Path:
    """Set up what is missing and continue inside the environment; returns ComfyUI's folder."""
    comfyui = releases.locate(version)
    environment.prepare(releases.locate())
    if not environment.is_active():
        environment.execute([str(environment.PYTHON), *sys.argv])
    return comfyui


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = _add_server_command(commands, "run", run)
    command.add_argument("workflow", type=Path, help="the workflow file, as ComfyUI saves it")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE TITLE.input=value",
        help="give a widget another value; may be repeated",
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="where to save (default: .host/output/NAME)")

    command = _add_server_command(commands, "serve", serve)
    command.add_argument("--port", type=_port, help="1 to 65535 (default: one that is free)")

    _add_forwarding_command(commands, "exec", execute)
    _add_forwarding_command(commands, "test", test)
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; allowed: 1 to 65535")
    return int(text)


def _add_server_command(commands, name: str, function) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
    command.add_argument("--comfyui-version", choices=list(releases.PINNED), help="a pinned ComfyUI other than the default")
    command.add_argument(
        "--frontend", metavar="VERSION", help=f"a frontend other than ComfyUI's own, such as {frontends.NEWEST}"
    )
    command.set_defaults(command=function)
    return command


def _add_forwarding_command(commands, name: str, function) -> None:
    """Add a command that passes on all arguments, options too: with this prefix character argparse takes none for its own."""
    command = commands.add_parser(name, help=function.__doc__, prefix_chars="\0", add_help=False)
    command.add_argument("arguments", nargs=argparse.REMAINDER)
    command.set_defaults(command=function)


def _exit_on_signal(number: int, frame: object) -> None:
    """Exit by an exception, so that context managers end the server."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
