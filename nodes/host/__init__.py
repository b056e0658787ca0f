"""The only code that knows ComfyUI's inside."""
