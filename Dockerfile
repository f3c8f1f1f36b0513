# An environment that runs the tests: docker build -t dpresnet-repro . && docker run --rm dpresnet-repro
# This file was written where no container engine was at hand: it has never been built. What it
# runs is what the README runs on a plain machine, `make test`.
FROM python:3.11.7-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make gcc libc6-dev git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /artifact
COPY . .
# The exact versions of requirements.lock; the index is pip's default.
RUN make install LOCKED=1

# Results: docker run --rm -v "$PWD/reproduction:/artifact/reproduction" dpresnet-repro \
#     make reproduce LOCKED=1 DATA=synthetic
CMD ["make", "test", "LOCKED=1"]
