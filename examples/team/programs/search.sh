#!/bin/sh
# Prints the lines of the handbook that WORD stands in, each with its chapter and its number.
# The exit status is 1 when there is none.
set -eu
index=@index@
if [ $# -ne 1 ]; then
  echo "usage: handbook-search WORD" >&2
  exit 2
fi
word=$(printf '%s' "$1" | tr 'A-Z' 'a-z')
if grep -qxF -e "$word" "$index/stop-words"; then
  echo "handbook-search: '$word' is too common to be in the index" >&2
  exit 1
fi
awk -F '\t' -v word="$word" '$1 == word { found = 1; print $2, $3 } END { exit !found }' "$index/postings.tsv" |
  while read -r chapter line; do
    printf '%s:%s: %s\n' "$chapter" "$line" "$(sed -n "${line}p" "$index/text/$chapter")"
  done | grep . || {
  echo "handbook-search: '$word' is not in the handbook" >&2
  exit 1
}
