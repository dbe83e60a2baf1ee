//! Saved graphs and `.drv` files from elsewhere as sides of `diff`: which are taken, and which are refused without harm.

use serde_json::{Value, json};

use crate::support::graphs::document;
use crate::support::nix::{Store, a_nix, base};
use crate::support::outcome::Outcome;
use crate::support::program::Run;
use crate::support::project;

/// A diamond in a store, and the saved graph of it.
struct Saved {
    store: Store,
    top: String,
    document: Value,
}

impl Saved {
    fn new() -> Self {
        let store = Store::new(a_nix());
        let top = store.instantiate(&project::diamond(), "top");
        let document = document(&store, &[&top]);
        store.scratch.file("good.json", document.to_string());
        Self { store, top, document }
    }

    fn diff(&self, old: &str, new: &str) -> Outcome {
        Run::new(&self.store).args(["diff", old, new]).run()
    }

    /// Compares the graph with what a change makes of its document.
    fn changed(&self, change: impl Fn(&mut Value)) -> Outcome {
        let mut document = self.document.clone();
        change(&mut document);
        self.store.scratch.file("changed.json", document.to_string());
        self.diff("good.json", "changed.json")
    }
}

#[test]
fn nothing_that_a_saved_graph_says_steers_the_terminal() {
    let saved = Saved::new();
    // Every run is searched for escape codes.
    let odd = "/x/\u{1b}[31m";
    let last = saved.document["derivations"].as_array().unwrap().len() - 1;
    saved.changed(|document| document["derivations"][last]["kind"] = json!(odd)).expect(2);
    saved.changed(|document| document["storeDir"] = json!(odd)).expect(2);
    saved.changed(|document| document["schema"] = json!(odd)).expect(2);
    saved.changed(|document| document["derivations"][last]["outputs"][0]["name"] = json!(odd)).expect(2);
    saved.changed(|document| document["derivations"][last]["inputs"][0]["dynamic"] = json!([odd])).expect(2);
    let drv = |document: &mut Value| {
        document["derivations"][last]["drv"] = json!(odd);
        document["derivations"][last].as_object_mut().unwrap().remove("env");
    };
    saved.changed(drv).expect(2).complains(&["is no path of its store"]);
    // A whole graph of a store of such a name, and files of such names.
    let elsewhere = saved.document.to_string().replace(&saved.store.dir_text(), "/x/\\u001b[31ms");
    saved.store.scratch.file("elsewhere.json", elsewhere);
    saved.diff("elsewhere.json", "elsewhere.json").expect(2).complains(&["is no path of its store"]);
    saved.store.scratch.file("e\u{1b}]0;t\u{7}.json", "{");
    saved.diff("good.json", "e\u{1b}]0;t\u{7}.json").expect(2).complains(&["e\\u{1b}]0;t\\u{7}.json"]);
    let text = std::fs::read_to_string(&saved.top).unwrap();
    let file = saved
        .store
        .scratch
        .file(&format!("d/{}", base(&saved.top)), text.replace(&saved.store.dir_text(), "/x/\u{1b}[31ms"));
    Run::new(&saved.store).arg("graph").arg(file).run().expect(3);
}
