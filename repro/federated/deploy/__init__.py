"""A federation that trains as processes: one signed plan, a server, hospitals on their own files.

``plan`` says what is trained and what it will spend, ``training`` makes the arm's round protocol of
it, the same at every party; ``server`` and ``hospital`` are the two ends, over
``repro.secagg.deploy``; ``keeping`` is what a hospital has on its disk before a part leaves it.
"""
