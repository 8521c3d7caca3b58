"""Films in, scored films out: the work on a list of takes, the json of each, and features kept for the next time."""
