#!/bin/sh
# Puts a directory of pages into one tar file, together with what is known of them.
#
#   {"dir": "/…/JOB", "pages": […]}  ->  {"path": "/…/JOB.tar", "bytes": 10240}
set -eu
. "$(dirname "$0")/json.sh"
params=$(cat)
dir=$(param dir)
printf '%s\n' "$params" >"$dir/manifest.json"
# First beside it, then in its place: nobody sees half an archive.
tar -cf "$dir.tar.new" -C "$dir" .
mv "$dir.tar.new" "$dir.tar"
printf '{"path":"%s","bytes":%d}\n' "$dir.tar" "$(wc -c <"$dir.tar" | tr -d ' ')"
