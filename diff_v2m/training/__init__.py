"""What `train.py` does, of which it is the list of steps.

settings → recipes     flags, and what they train: the generator or the autoencoder, on which data
generator  losses      a step of the one; autoencoder: of the other; averages, schedules: what follows a step
trainer                Lightning's Trainer: strategies (devices, precision), callbacks, interruption
demos  music_metrics   music composed on the way, to hear and to measure
"""
