#!/bin/sh
# Counts the words of one page and sums it up.
#
#   {"dir": "/…", "page": "page-0001.txt"}  ->  {"page": "page-0001.txt", "words": 212, "checksum": "2382034521"}
set -eu
. "$(dirname "$0")/json.sh"
params=$(cat)
dir=$(param dir)
page=$(param page)
if [ ! -r "$dir/$page" ]; then
    # Perhaps the disk is away: a failure like any other, which the state tries again.
    echo "$page is not there" >&2
    exit 1
fi
words=$(wc -w <"$dir/$page" | tr -d ' ')
checksum=$(cksum <"$dir/$page" | cut -d ' ' -f 1)
printf '{"page":"%s","words":%d,"checksum":"%s"}\n' "$page" "$words" "$checksum"
