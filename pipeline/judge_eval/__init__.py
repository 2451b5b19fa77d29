"""How far can a judge be trusted? Labelled pairs in, figures and a calibration out.

    items.py         labelled pairs -> prompts and responses for the judge stage, order drawn by seed
    verdicts.py      judgments -> what the judge said about each pair, beside who was right
    figures.py       accuracy, bias toward a slot or a length, losses, baselines
    reliability.py   confidence against accuracy: bins and calibration error
    fitting.py       a calibration fitted on one half of the contexts and measured on the other

All pure; `run/judge_eval.py` asks the model, `report/judge_eval.py` writes the page.
"""
