# Makes a page of a chapter: the first line is its title, an empty line ends a paragraph.
{
  gsub(/&/, "\\&amp;")
  gsub(/</, "\\&lt;")
}
NR == 1 {
  print "<!doctype html><title>" $0 "</title><link rel=\"stylesheet\" href=\"../style.css\"><h1>" $0 "</h1>"
  next
}
/^$/ {
  print "<p>"
  next
}
{ print }
