"""Evaluation: reads finished files from disk and never imports the model.

    evaluate.py           the command line; every metric below is also a script of its own (python -m inference.fad …)
    fad · kl · density_coverage · imagebind_score · rhythm · audio
                          one metric each: pure functions on arrays, then `figures`, which feeds them from a workspace
    workspace.py          the clips of one evaluation, their embeddings, and what had to be left out
    pairing.py            which file belongs to which: by stem within a data set
    embedders.py          networks that listen, weights from a folder: vggish.py, cnn14.py, imagebind.py (which also
                          watches), CLAP, log-mel statistics
    optional.py           those whose package a user may install: PaSST, Audiobox aesthetics
    events.py             what happens in the picture, and when
    bootstrap.py · figures.py · report.py
    page.py · comparison_page.py
                          reports to look at, from report.json (stills.py and charts.py draw; paper.py: its numbers)
    comparison.py         several systems on the same clips: differences and what chance makes of them
    listening.py          the command line of a blind listening test: listening_test.py makes it, preferences.py
                          analyses the answers

Nothing heavy is imported before the command line has been read.
"""
