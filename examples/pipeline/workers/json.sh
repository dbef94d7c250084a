# Enough JSON for these scripts; real ones would use jq. To be read with `.`, with the params in $params.

# The string member of that name. What has escapes in it is refused: no path in this example needs them.
param() {
    value=$(printf '%s' "$params" | sed -n 's/^.*"'"$1"'"[[:space:]]*:[[:space:]]*"\([^"\\]*\)".*$/\1/p')
    if [ -z "$value" ]; then
        echo "the params have no plain text named $1" >&2
        # The job's data is at fault, so nobody tries again.
        exit 65
    fi
    printf '%s' "$value"
}
