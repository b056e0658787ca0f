"""All paths. Generated files are below `.host/`, which git ignores."""

from pathlib import Path

PACK_NAME = "ComfyUI-DreamVideo"
REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = REPOSITORY / "scripts" / "requirements.txt"
CONSTRAINTS = REPOSITORY / "scripts" / "constraints.txt"

HOST = REPOSITORY / ".host"
TOOLS = HOST / "tools"
ENVIRONMENT = HOST / "environment"
RELEASES = HOST / "comfyui"
FRONTENDS = HOST / "frontends"
BASE = HOST / "base"
OUTPUT = HOST / "output"
