"""Auditing: lower bounds on ε from attacks on the very code whose ε is stated.

- ``bounds``: statistics of membership tests (torch-free);
- ``claim``: what an arm promises: noise, sampling, steps, ε and δ;
- ``canaries``: crafted records and updates, and how their traces are scored;
- ``coalition``: a secure sum as its planned adversary sees it;
- ``shared_noise``, ``second_order``: audited runs of the arms that sum noise inside it;
- ``many_run``: independent runs with and without one canary;
- ``one_run``: one run with many canaries (Steinke, Nasr, Jagielski 2023);
- ``options``: adaptive clipping and banded noise of ``make_private``, with a control each;
- ``controls``: deliberately broken mechanisms, which every audit must catch;
- ``procedure``: one arm's audit from its settings to its JSON.

An audit refutes; it never proves. A bound below the stated ε is what a right implementation
gives, and what a wrong one outside the audited attack gives too.
"""
