"""Learning tests without pretrained weights: procedural edits, tiny models, an analytic judge."""
