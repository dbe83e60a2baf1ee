//! Derivations that are sources of others as such.

use super::*;

#[test]
fn a_derivation_that_is_a_source_is_followed_and_no_difference_of_its_own() {
    // With its outputs and all that is below, as `x.drvPath` stands for.
    let models = |flags: &str| {
        make(&[
            model("source", &[]).with("flags", flags),
            model("source", &[]).with("number", "two"),
            model("x", &[0, 1]),
            model("top", &[2]).derivations(&[2, 1, 0]),
        ])
    };
    assert_eq!(shown(&models("1"), &models("2")), one("source", &["flags: 1 -> 2"], 3));
    // Without its outputs, which something else needs.
    let models = |flags: &str| {
        make(&[
            model("x", &[]).with("flags", flags),
            model("user", &[0]),
            model("lister", &[]).derivations(&[0]),
            model("top", &[1, 2]),
        ])
    };
    assert_eq!(shown(&models("1"), &models("2")), one("x", &["flags: 1 -> 2"], 4));
}

#[test]
fn a_derivation_that_makes_the_same_is_another_source() {
    let models = |url: &str| {
        make(&[
            model("x", &[]).with("url", url).fixed("x"),
            model("user", &[0]),
            model("lister", &[]).derivations(&[0]),
            model("top", &[1, 2]),
        ])
    };
    assert_eq!(shown(&models("1"), &models("2")), one("lister", &["source x.drv true true"], 2));
}

#[test]
fn a_derivation_that_comes_as_a_source_is_told_as_one() {
    let models = |derivations: &[usize]| {
        make(&[
            model("x", &[]),
            model("y", &[]),
            model("lister", &[]).derivations(derivations),
            model("top", &[0, 1, 2]),
        ])
    };
    let (old, new) = (models(&[0]), models(&[0, 1]));
    let drv = |made: &Made, name: &str| {
        let mut all = made.graph.indices().map(|index| made.graph.derivation(index));
        let found = all.find(|derivation| derivation.name() == name).expect("one");
        StoreDir::default().render_path(&found.path())
    };
    let variable = format!("drv1: nothing -> {}", drv(&new, "y"));
    assert_eq!(shown(&old, &new), one("lister", &[&variable, "source y.drv false true"], 2));
}
