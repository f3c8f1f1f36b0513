"""The released Flower, executed: does its modifier add noise, and which arrangements can run?

- ``plan``: what is asked, the same of every release and of our code;
- ``environments``: throw-away virtual environments from the package registry;
- ``inside``: the script that runs in them, the only file here that imports Flower;
- ``ours``: the same questions to our own modifiers and secure sum;
- ``record``: both measured alike, as the JSON that Table 8 is drawn from.

Nothing of the authors' or of Flower's is copied: the arrangements are rebuilt from their
description, with models that are plain arrays.
"""
