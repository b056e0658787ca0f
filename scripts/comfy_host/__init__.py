"""A real ComfyUI below the repository: get one, start it, run workflows in it.

`paths`, `errors`, `console`, `releases` and `environment` need nothing but Python. The other modules run inside
the environment that `environment.prepare` makes.
"""
