"""The world of the bundled default model: scenes, and a composer that writes the music for them."""
