"""Evaluation of finished files. It never imports the model.

evaluate.py           command line; every metric is also a script of its own: python -m inference.fad …
fad · kl · density_coverage · imagebind_score · rhythm · audio
                      one metric each: functions on arrays, then `compute(workspace)`, which applies them to the files
metric.py             `MetricResult`, what every metric returns
workspace.py          the files of one evaluation, their embeddings, and what was skipped
pairing.py            finds files and pairs them by stem
bootstrap.py          intervals
encoders/             networks that embed audio or video
report/               report.json, report.md and index.html of one system
comparison/           several systems on the same clips: differences and their significance
listening_test/       command line of a blind listening test, its page, and the analysis of the answers

Heavy packages are imported after the command line is parsed.
"""
