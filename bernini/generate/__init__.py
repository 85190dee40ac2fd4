"""Generation: guidance, solvers, the pipeline, its command and its web demo."""
