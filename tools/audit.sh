#!/usr/bin/env bash
# `make audit`: are there known vulnerabilities in what constraints-hashed.txt pins?
# Exit status: 0 all were looked up and none is known, 1 some are known, 3 not checked.
set -u
cd "$(dirname "$0")/.."
tools=${TOOLS:-.audit}/bin
report=$(mktemp)
log=$(mktemp)
trap 'rm -f "$report" "$log"' EXIT
timeout "${AUDIT_SECONDS:-600}" "$tools/pip-audit" --requirement constraints-hashed.txt --disable-pip \
    --progress-spinner off --format json --output "$report" 2>"$log"
status=$?
if [ ! -s "$report" ]; then
    tail -n 3 "$log" >&2
    echo "audit: NOT CHECKED: the vulnerability service gave no answer (pip-audit ended with $status)" >&2
    exit 3
fi
"$tools/python" - "$report" <<'PYTHON'
import json
import sys

packages = json.load(open(sys.argv[1]))["dependencies"]
skipped = [package for package in packages if "skip_reason" in package]
known = [(package, fault) for package in packages for fault in package.get("vulns", [])]
for package, fault in known:
    fixed = ", ".join(fault["fix_versions"]) or "no release"
    print(f"{package['name']} {package['version']}: {fault['id']}, mended in {fixed}")
for package in skipped[:5]:
    print(f"{package['name']}: not checked: {package['skip_reason']}")
if len(skipped) == len(packages):
    print("audit: NOT CHECKED: the vulnerability service knows none of the packages, so it is out of reach")
else:
    print(f"audit: {len(known)} known vulnerabilities; looked up {len(packages) - len(skipped)} of {len(packages)}")
sys.exit(1 if known else 3 if skipped else 0)
PYTHON
