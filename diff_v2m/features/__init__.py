"""Per-second features of a video, and the rhythm target of a waveform.

video_features.py   the data class: semantic, colour, scene cuts, pseudo beats
semantic.py         encoders of a frame: CLIP, HOG, ImageNet classes
imagenet.py         ImageNet classes, summed up in 12 families of scenes
color.py            RGB-uv histogram of a frame
motion.py           shot cuts and motion peaks over the whole video
shots.py            mean motion of the shot and distances to its cuts
extract.py          all of them in one pass over a file
events.py           cuts and motion peaks at their exact times, for metrics
rhythm.py           waveform → per-second onset curve (ODF), mel, tempogram
"""
