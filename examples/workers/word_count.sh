#!/bin/sh
# A worker's handler in a few lines of shell: counts the words of the param `text`.
#
#   avtomatika-worker --token test-worker-token --task 'count_words=exec:examples/workers/word_count.sh'
#
# The params come as JSON on stdin, the result goes as JSON to stdout, everything else to stderr, where the worker logs it with
# the task's id. Exit code 65 says that the job's data is at fault and trying again is useless.
set -eu

params=$(cat)
# Enough JSON for this example; a real script would use jq: text=$(printf '%s' "$params" | jq -er .text)
text=$(printf '%s' "$params" | sed -n 's/^.*"text"[[:space:]]*:[[:space:]]*"\(\([^"\\]\|\\.\)*\)".*$/\1/p')
if [ -z "$text" ]; then
    echo "the params have no text, or an empty one" >&2
    exit 65
fi

echo "counting for job $AVTOMATIKA_JOB_ID, attempt $AVTOMATIKA_ATTEMPT" >&2
# In JSON a line break and a tab inside a string are written \n and \t.
words=$(printf '%s' "$text" | sed 's/\\[nt]/ /g' | wc -w | tr -d ' ')
printf '{"words":%d}\n' "$words"
