"""The only code that depends on ComfyUI's internals."""
