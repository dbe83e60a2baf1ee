# Makes the index: one line for each word and each line of the handbook that it stands in.
# The first file lists the words to leave out; the others are the chapters.
FNR == 1 {
  files++
  chapter = FILENAME
  sub(/.*\//, "", chapter)
}
files == 1 {
  skip[$1] = 1
  next
}
{
  for (i = 1; i <= NF; i++)
    if (!($i in skip))
      print $i "\t" chapter "\t" FNR
}
