"""Secure aggregation between machines: durable identities, a signed directory, many rounds.

- ``keystore``, ``directory``, ``counter``, ``transcript``, ``certificates``: the files;
- ``announcement``: what opens a round; ``place``: where a party keeps its things;
- ``serving``: the server's rounds; ``member``, ``joining``, ``agent``: a hospital's;
- ``audit``: what logs prove; ``flower``: the same rounds over Flower's network.
"""
