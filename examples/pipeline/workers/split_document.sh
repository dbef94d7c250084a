#!/bin/sh
# Splits the text `document` into pages, which a form feed separates, as files of a directory of the job's own.
#
#   {"document": "moby.txt"}  ->  {"dir": "/…/pipeline-data/JOB", "pages": ["page-0001.txt", …], "count": 4}
set -eu
. "$(dirname "$0")/json.sh"
params=$(cat)
document=$(param document)
if [ ! -f "$document" ]; then
    echo "there is no document $document" >&2
    exit 65
fi

# Whoever tries again starts from nothing: what an earlier attempt has left is not half of this one.
dir=${PIPELINE_DIR:-pipeline-data}/$AVTOMATIKA_JOB_ID
rm -rf "$dir"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
awk -v dir="$dir" 'BEGIN { RS = "\f" }
    { page = sprintf("%s/page-%04d.txt", dir, NR); printf "%s", $0 > page; close(page) }' "$document"

pages=$(cd "$dir" && ls)
if [ -z "$pages" ]; then
    echo "$document has no pages" >&2
    exit 65
fi
count=$(printf '%s\n' "$pages" | wc -l | tr -d ' ')
list=$(printf '%s\n' "$pages" | sed 's/.*/"&"/' | paste -s -d , -)
printf '{"dir":"%s","pages":[%s],"count":%d}\n' "$dir" "$list" "$count"
