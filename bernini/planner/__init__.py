"""The planner: a vision-language model that fills in the target's visual features before rendering."""
