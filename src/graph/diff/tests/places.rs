//! What is in the place of what, where names or graphs do not tell at once.

use super::*;

#[test]
fn what_is_on_both_sides_is_no_other_version_of_something() {
    // All are rebuilt because of base, and app takes the other of two.
    for names in [["n1", "n3"], ["ssl-1", "ssl-3"]] {
        let models = |flags: &str, taken: usize| {
            make(&[
                model("base", &[]).with("flags", flags),
                model(names[0], &[0]),
                model(names[1], &[0]),
                model("app", &[taken]),
                model("top", &[1, 2, 3]),
            ])
        };
        let found = shown(&models("1", 1), &models("2", 2));
        let told: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(told, ["base", "app"], "{found:?}");
        assert_eq!(found[1].1[1..], [format!("- {}", names[0]), format!("+ {}", names[1])]);
    }
}

#[test]
fn what_has_been_wrapped_is_compared_with_what_it_was() {
    let old = make(&[model("lib", &[]).with("flags", "1"), model("top", &[0])]);
    let new = make(&[model("lib", &[]).with("flags", "2"), model("lib-wrapper", &[0]), model("top", &[1])]);
    let found = shown(&old, &new);
    assert_eq!(found[0], one("lib", &["flags: 1 -> 2"], 3).remove(0));
    assert_eq!(
        (found[1].0.as_str(), &found[1].1[1..]),
        ("top", &["- lib".into(), "+ lib-wrapper".into()][..])
    );
    // One that is wrapped as it was is no difference.
    let new = make(&[model("lib", &[]).with("flags", "1"), model("lib-wrapper", &[0]), model("top", &[1])]);
    assert_eq!(shown(&old, &new).len(), 1);
    // Where there are two of the name, it may be either.
    let new = make(&[
        model("lib", &[]).with("flags", "2"),
        model("lib", &[]).with("flags", "3"),
        model("lib-wrapper", &[0, 1]),
        model("top", &[2]),
    ]);
    assert_eq!(shown(&old, &new).len(), 1);
}
