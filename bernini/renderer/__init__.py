"""The renderer: a video diffusion transformer that sees its sources as extra segments."""
