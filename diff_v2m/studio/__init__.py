"""A page on which music for videos is made. Data flow: page → job folders ← worker.

command.py    `python -m diff_v2m studio`: flags, the worker's process and the server
folders.py    job folders: what is in them, and who writes what
actions.py    what the page and the API can ask for
tasks.py      what the page asks for: compose, redo, mix; checked
worker.py     a process of its own that does the tasks in order; it survives the page, and the page survives it
work.py       how each kind of task is done with the model
timeline.py   what the page draws of a video
levels.py     loudness of a mix before it is made
server.py     what is served, and to whom
page.py       the page and the HTTP API, with Gradio
assets/       the page's own components
"""

LOOPBACK = ("127.0.0.1", "localhost", "::1")
UPLOADS = ".uploads"  # folder beside the jobs, for videos on their way
