"""Ask a vision-language model about rows, check the answer, keep the evidence.

To add an annotator: write `annotators/<what>.py` (prompt, schema, columns, a small class)
and name it here. Every one takes `backend="classical"`, which measures where something can be
measured and otherwise says that it needs a served model, or `"openai"` and `"vllm"`.
"""

ANNOTATORS = {
    "transition": "annotators.transition:DescribeTransition",
    "instruction": "annotators.transition:RefineTransition",
}
