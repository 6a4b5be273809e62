"""Random input of every kind that users hand to scenelearn; see `__main__`."""
