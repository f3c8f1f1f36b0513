"""A benchmark of private image classification that others can enter (``repro benchmark``).

Data set × ε × who holds the images × method, several seeds each. Not ``repro.bench``, which
measures speed. What is on record is read, what is missing is run, and every ε that is written down
has been computed again here from what the run, or the entry, says it released.

- ``grid``: methods, cells, and which of their runs are on record;
- ``epsilon``: a record's ε once more, from its rounds;
- ``entry``: other people's methods, one file each;
- ``measures``, ``paired``: accuracies, and differences over the same seeds and images;
- ``results``, ``page``: benchmark.json and benchmark.md.
"""
