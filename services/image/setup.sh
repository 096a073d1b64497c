#!/bin/sh
# packages of the system that a library of the lock takes
set -e
apt-get update
apt-get install -q -y --no-install-recommends {{ system | join(" ") }}
rm -rf /var/lib/apt/lists/* /var/cache/apt/*
