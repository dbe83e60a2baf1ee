# A team's handbook: its text, a search program over it, and a web site made of it.
#
# There is no nixpkgs here and no download. Each derivation is a short shell script that uses what every Linux
# distribution has, which takes a build without a sandbox (`sandbox = false`).
{
  system ? builtins.currentSystem,
}:

let
  step =
    name: attributes: script:
    derivation (
      {
        inherit name system;
        builder = "/bin/sh";
        args = [
          "-euc"
          script
        ];
        PATH = "/usr/bin:/bin:/run/current-system/sw/bin";
        # The order that `sort` gives depends on the locale, and an output must not.
        LC_ALL = "C";
      }
      // attributes
    );

  # One store path for each file, so that a change to one of them rebuilds only what is made from it.
  file =
    path:
    builtins.path {
      inherit path;
      name = baseNameOf path;
    };

  # Too small to be worth a download: every machine makes it itself. What refers to it is still fetched from a
  # cache, and for that the cache must have it as well.
  stopWords =
    step "stop-words"
      {
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
      ''
        printf '%s\n' a after all and any as at be by for from in is it its many may no not of on or so than that the \
          to what when where which with | sort >$out
      '';

  # What must come out is known before, as with every download. Here the archive lies in the repository.
  glossary =
    step "glossary"
      {
        src = file ./vendor/glossary.txt.gz;
        outputHashMode = "flat";
        outputHashAlgo = "sha256";
        outputHash = "sha256-zT7UhSNIkEl97s2MUrypf1fZmqsKJq9UZmQdGhhxj/g=";
      }
      ''
        gzip -dc $src >$out
      '';

  # The text as it was written, and beside it the same lines in lower case without punctuation.
  corpus = step "corpus" { chapters = file ./handbook; } ''
    mkdir -p $out/text $out/words
    cp $chapters/*.txt $out/text
    for chapter in $out/text/*; do
      tr 'A-Z' 'a-z' <$chapter | sed -e 's/[^a-z-]/ /g' -e 's/  */ /g' >$out/words/''${chapter##*/}
    done
  '';

  # How often each word is used, the most frequent first.
  wordCounts = step "word-counts" { inherit corpus stopWords; } ''
    mkdir $out
    cat $corpus/words/*.txt | tr -s ' ' '\n' | sed '/^$/d' | grep -vxF -f $stopWords | sort | uniq -c |
      awk '{ print $1 "\t" $2 }' | sort -k1,1nr -k2,2 >$out/counts.tsv
    ln -s $corpus/words $out/words
  '';

  # Which word stands in which line of which chapter.
  index =
    step "index"
      {
        inherit corpus stopWords;
        program = file ./programs/index.awk;
      }
      ''
        mkdir $out
        awk -f $program $stopWords $corpus/words/*.txt | sort -u >$out/postings.tsv
        ln -s $corpus/text $out/text
        ln -s $stopWords $out/stop-words
      '';

  search =
    step "handbook-search"
      {
        inherit index;
        outputs = [
          "out"
          "doc"
        ];
        program = file ./programs/search.sh;
      }
      ''
        mkdir -p $out/bin $doc/share/doc
        sed "s|@index@|$index|" $program >$out/bin/handbook-search
        chmod +x $out/bin/handbook-search
        {
          printf '%s\n\n' "usage: $out/bin/handbook-search WORD"
          sed -n -e '1d' -e '/^# /!q' -e 's/^# //p' $program
        } >$doc/share/doc/handbook-search.txt
      '';

  # The search program is used once before anybody relies on it.
  searchTest = step "search-test" { inherit search; } ''
    found=$($search/bin/handbook-search Closure | cut -d : -f 1 | sort -u | tr '\n' ' ')
    test "$found" = "1-why.txt 2-closures.txt "
    if $search/bin/handbook-search the; then exit 1; fi
    if $search/bin/handbook-search unicorn; then exit 1; fi
    echo "$search/bin/handbook-search finds what it should" >$out
  '';

  style = step "style" { sheet = file ./programs/style.css; } ''
    mkdir $out
    tr '\n' ' ' <$sheet | sed -e 's|/\*[^*]*\*/||g' -e 's/  */ /g' -e 's/ *\([{};:,]\) */\1/g' >$out/style.css
  '';

  pages =
    step "pages"
      {
        inherit corpus;
        program = file ./programs/page.awk;
      }
      ''
        mkdir $out
        for chapter in $corpus/text/*; do
          name=''${chapter##*/}
          awk -f $program $chapter >$out/''${name%.txt}.html
        done
      '';

  site =
    step "site"
      {
        inherit
          glossary
          pages
          style
          wordCounts
          ;
      }
      ''
        mkdir $out
        ln -s $style/style.css $out/style.css
        ln -s $glossary $out/glossary.txt
        ln -s $wordCounts/counts.tsv $out/words.tsv
        ln -s $pages $out/chapters
        {
          echo '<!doctype html><title>Handbook</title><link rel="stylesheet" href="style.css"><h1>Handbook</h1><ol>'
          for page in $pages/*.html; do
            title=$(sed -n 's|.*<h1>\(.*\)</h1>.*|\1|p' $page)
            echo "<li><a href=\"chapters/''${page##*/}\">$title</a></li>"
          done
          echo '</ol><p><a href="glossary.txt">Glossary</a>, <a href="words.tsv">words by use</a>'
        } >$out/index.html
      '';

  # The site as one file for a machine without Nix: nothing in it refers to the store.
  archive = step "archive" { inherit site; } ''
    mkdir $out
    tar -C $site --dereference --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner --mode=a+rX -cf - . |
      gzip -9n >$out/handbook.tar.gz
  '';

  handbook =
    step "handbook"
      {
        inherit
          archive
          search
          searchTest
          site
          ;
        searchDoc = search.doc;
      }
      ''
        mkdir -p $out/bin $out/share
        ln -s $search/bin/handbook-search $out/bin/handbook-search
        ln -s $searchDoc/share/doc $out/share/doc
        ln -s $site $out/share/site
        ln -s $archive $out/share/archive
        ln -s $searchTest $out/share/search-test
      '';
in
{
  inherit
    archive
    corpus
    glossary
    handbook
    index
    pages
    search
    searchTest
    site
    stopWords
    style
    wordCounts
    ;
  default = handbook;
}
