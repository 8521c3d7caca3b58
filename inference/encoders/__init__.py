"""Networks that embed audio or video. Weights come from a folder and are never downloaded."""
