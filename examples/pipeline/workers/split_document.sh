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
dir=${PIPELINE_DIR:-pipeline-data}/$AVTOMATIKA_JOB_ID
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# Whoever tries again goes on after the last page that an earlier attempt has saved, which it finds in {"page": 3}.
page=$(printf '%s' "${AVTOMATIKA_CHECKPOINT-}" | tr -dc 0-9)
page=${page:-0}
count=$(awk 'BEGIN { RS = "\f" } END { print NR }' "$document")
while [ "$page" -lt "$count" ]; do
    page=$((page + 1))
    file=$(printf '%s/page-%04d.txt' "$dir" "$page")
    # First beside it, then in its place: nobody sees half a page.
    awk -v page="$page" 'BEGIN { RS = "\f" } NR == page { printf "%s", $0 }' "$document" >"$file.new"
    mv "$file.new" "$file"
    echo "progress $((100 * page / count))% page $page of $count" >&3
    echo "checkpoint {\"page\": $page}" >&3
done
if [ "$count" -eq 0 ]; then
    echo "$document has no pages" >&2
    exit 65
fi
list=$(cd "$dir" && ls | sed 's/.*/"&"/' | paste -s -d , -)
printf '{"dir":"%s","pages":[%s],"count":%d}\n' "$dir" "$list" "$count"
