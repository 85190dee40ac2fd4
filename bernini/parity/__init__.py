"""Checks our numbers against recorded ones: `bernini model verify DIR`.

For whoever ports the model, adds an attention kernel or doubts a machine. A folder holds
`NAME.json` (sizes, cases) with `NAME.safetensors` (weights `w.`, inputs `in.`, results `out.`);
sizes and seeds are read from there, so any set of that format runs.
"""
