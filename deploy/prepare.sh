#!/bin/sh
# Keys, files and the signed plan of a federation of three, all in one folder, to try it out. In
# earnest each party makes its key where it stays, and the operator is none of them.
set -eu
if [ -f plan.json ]; then exit 0; fi
umask 077
repro federation split "$ARM" --profile "$PROFILE" --data "$DATA" --hospitals 3 --out files
repro secagg keygen operator.key
repro secagg keygen server.key --tls "$HOST"
repro secagg keygen 0.key
repro secagg keygen 1.key
repro secagg keygen 2.key
repro federation offer 0.offer --key 0.key --data files/hospital-0.npz
repro federation offer 1.offer --key 1.key --data files/hospital-1.npz
repro federation offer 2.offer --key 2.key --data files/hospital-2.npz
printf 'arms = ["%s"]\nlargest_epsilon = 6.0\nminimum_hospitals = 3\n' "$ARM" > policy.toml
repro federation plan "$ARM" plan.json --profile "$PROFILE" --operator-key operator.key --server-key server.key.pub --offer 0.offer --offer 1.offer --offer 2.offer --least 3
