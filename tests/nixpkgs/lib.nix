# What is used of nixpkgs' library, doing what the real functions do (https://nixos.org/manual/nixpkgs/stable/#chap-functions).
let
  inherit (builtins)
    all
    any
    attrNames
    concatMap
    elem
    filter
    foldl'
    functionArgs
    hasAttr
    intersectAttrs
    isAttrs
    isFunction
    isPath
    isString
    listToAttrs
    mapAttrs
    pathExists
    readFile
    split
    stringLength
    substring
    ;
in
rec {
  inherit concatMap mapAttrs;

  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  unique = foldl' (seen: item: if elem item seen then seen else seen ++ [ item ]) [ ];
  concatLines = foldl' (text: line: "${text}${line}\n") "";
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  importTOML = file: builtins.fromTOML (readFile file);
  splitString = separator: text: filter isString (split separator text);
  licenses = {
    asl20.spdxId = "Apache-2.0";
    mit.spdxId = "MIT";
  };

  getExe =
    package:
    "${package}/bin/${
      package.meta.mainProgram or (throw "getExe: ${package.name} does not say its meta.mainProgram")
    }";

  # An argument without a value and without a default is an error that names it, as in nixpkgs.
  callPackageWith =
    scope: file: arguments:
    let
      function = if isFunction file then file else import file;
      wanted = functionArgs function;
      given = intersectAttrs wanted scope // arguments;
      isMissing = name: !wanted.${name} && !hasAttr name given;
      missing = filter isMissing (attrNames wanted);
    in
    if missing == [ ] then
      function given
    else
      throw "callPackage: ${toString file} wants ${builtins.concatStringsSep ", " missing}, which is no package here";

  # A set of packages that see each other, and see what overrideScope changes.
  makeScope =
    callPackageIn: f:
    let
      self = f self // {
        callPackage = callPackageIn self;
        overrideScope =
          change:
          makeScope callPackageIn (
            final:
            let
              previous = f final;
            in
            previous // change final previous
          );
      };
    in
    self;

  fileset =
    let
      paths =
        file:
        if isAttrs file && file._type or null == "fileset" then
          file.paths
        else if isPath file && pathExists file then
          [ (toString file) ]
        else
          throw "lib.fileset: ${toString file} is no path that exists";
    in
    {
      unions = files: {
        _type = "fileset";
        paths = concatMap paths files;
      };
      toSource =
        { root, fileset }:
        let
          wanted = paths fileset;
          isBelow = path: directory: path == directory || hasPrefix "${directory}/" path;
          isInside = path: any (isBelow path) wanted;
        in
        if all (path: isBelow path (toString root)) wanted then
          {
            outPath = builtins.path {
              name = "source";
              path = root;
              filter =
                path: type:
                isInside path || (type == "directory" && any (file: isBelow file path) wanted);
            };
          }
        else
          throw "lib.fileset.toSource: a file is not below the root";
    };
}
