"""How far can a judge be trusted? Labeled pairs in, figures and a calibration out.

items.py    labeled pairs -> prompts and responses for the judge stage, order drawn by seed;
judgments -> what the judge said about each pair, beside the truth
figures.py  accuracy, bias toward a slot or a length, losses, reliability, baselines
fit.py      a calibration fitted on one half of the contexts and measured on the other
run.py      asks the model, and writes metrics.json, the report and the calibration
report/     tables and page
"""
