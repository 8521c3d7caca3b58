"""Evaluation: reads finished files from disk and never imports the model.

    evaluate.py           the command line; every metric below is also a script of its own (python -m inference.fad …)
    fad · kl · density_coverage · imagebind_score · rhythm · audio
                          one metric each: pure functions on arrays, then `figures`, which feeds them from a workspace
    workspace.py          the clips of one evaluation, their embeddings, and what had to be left out
    pairing.py            which file belongs to which: by stem within a data set
    embedders.py          networks that listen (vggish.py, cnn14.py, CLAP, log-mel statistics), weights from a folder
    events.py             what happens in the picture, and when
    cache.py · bootstrap.py · figures.py · report.py

Nothing heavy is imported before the command line has been read.
"""
