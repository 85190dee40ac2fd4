"""Ask a vision-language model about rows, check the answer, keep the evidence.

To add an annotator: write `annotators/<what>.py` (prompt, schema, columns, a small class)
and name it here. Every one takes `backend="classical"`, which measures where something can be
measured and otherwise says that it needs a served model, or `"openai"` and `"vllm"`.
"""

ANNOTATORS = {
    "people": "annotators.people:NotePeople",                            # D1
    "transition": "annotators.transition:DescribeTransition",            # D1
    "instruction": "annotators.transition:RefineTransition",             # D1
    "difference": "annotators.difference:DescribeDifference",            # D2
    "key-frames": "annotators.key_frames:DescribeKeyFrames",             # D3
    "rewrite": "annotators.rewrite:RewriteTexts",                        # D3
    "questions": "annotators.key_frames:AskAboutSubject",                # D3
    "choose-edit": "annotators.edit_prompt:ChooseInstruction",           # D4
    "invent-edit": "annotators.edit_prompt:InventInstruction",           # D4
    "motion": "annotators.motion_prompt:WriteMotionPrompt",              # D4
    "motion-edit": "annotators.motion_edit:InventMotionEdit",            # D6
    "planned-edit": "annotators.planned_edit:WritePlannedEdit",          # D5
    "swap": "annotators.swap_prompt:RewriteSwapped",                     # D5
    "objects": "annotators.objects:NameObjects",                         # D7
    "references": "annotators.reference_prompt:CaptionReferences",       # D7
    "person": "annotators.reference_prompt:CaptionPerson",               # D8
    "removal": "annotators.removal_prompt:WriteRemoval",                 # D9
    "reasoning": "annotators.reasoning:WriteReasoning",                  # D11
    "frame-reasoning": "annotators.reasoning:ReasonEditedFrame",         # D12
    "judge": "annotators.judge:JudgeEdit",                               # evaluation, V2V
    "judge-picture": "annotators.judge:JudgePictureEdit",                # D4: edited pictures
    "judge-reference": "annotators.judge:JudgeReferenceEdit",            # evaluation, RV2V
}
