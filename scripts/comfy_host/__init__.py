"""A real ComfyUI below the repository: fetching it, starting it, and running workflows in it.

What the first command needs (`paths`, `errors`, `console`, `locks`, `packages`, `releases`, `frontends`, `environment`) uses
only Python itself. The other modules need the environment that `environment.prepare` makes.
"""
