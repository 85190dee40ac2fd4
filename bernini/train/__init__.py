"""Training of planner and renderer, from manifests (paper, sections 2.2, 4.1 and 5.1)."""
