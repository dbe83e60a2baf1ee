//! What is true of any two graphs.

use proptest::prelude::*;

use super::*;

proptest! {
    /// Whatever changes anywhere: named is what changed, and rebuilt is what is above it, but for what is above a download that has
    /// not changed.
    #[test]
    fn what_changed_is_named_and_nothing_else(
        needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..30),
        changed in prop::collection::vec(any::<bool>(), 30),
        fixed in prop::collection::vec(prop::bool::weighted(0.3), 30),
    ) {
        let inputs: Vec<Vec<usize>> = needs.iter().enumerate().map(|(number, needs)| {
            if number == 0 { return Vec::new() }
            let mut inputs: Vec<usize> = needs.iter().map(|need| need.index(number)).collect();
            inputs.sort_unstable();
            inputs.dedup();
            inputs
        }).collect();
        let models = |is_new: bool| {
            let all: Vec<Model> = inputs.iter().enumerate().map(|(number, inputs)| {
                let flags = if is_new && changed[number] { "new" } else { "old" };
                let model = model(&format!("n{number}"), inputs).with("flags", flags);
                if fixed[number] { model.fixed(&format!("{number} {flags}")) } else { model }
            }).collect();
            make(&all)
        };
        let (old, new) = (models(false), models(true));
        // What the root needs as far as it is built, and of that what is changed or above something changed.
        let (mut needed, mut is_rebuilt) = (vec![false; inputs.len()], changed[..inputs.len()].to_vec());
        for number in 0..inputs.len() {
            is_rebuilt[number] |= !fixed[number] && inputs[number].iter().any(|input| is_rebuilt[*input]);
        }
        needed[inputs.len() - 1] = true;
        for number in (0..inputs.len()).rev() {
            for input in &inputs[number] { needed[*input] |= needed[number] && is_rebuilt[number]; }
        }
        let found = compare(&old, &new);
        let mut named: Vec<&str> =
            found.found.iter().map(|difference| new.graph.derivation(difference.pair.new).name()).collect();
        named.sort_unstable();
        let mut expected: Vec<String> =
            (0..inputs.len()).filter(|number| needed[*number] && changed[*number]).map(|number| format!("n{number}")).collect();
        expected.sort_unstable();
        prop_assert_eq!(named, expected);
        let expected = (0..inputs.len()).filter(|number| needed[*number] && is_rebuilt[*number]).count();
        prop_assert_eq!(found.rebuilds, expected);
        for difference in &found.found {
            prop_assert_eq!(difference.changes.len(), 1);
            let start = new.graph.derivation(difference.pair.new).name().to_owned();
            let mut is_because_of_it: Vec<bool> =
                (0..inputs.len()).map(|number| format!("n{number}") == start).collect();
            for number in 0..inputs.len() {
                let is_above = inputs[number].iter().any(|input| is_because_of_it[*input]);
                is_because_of_it[number] |= !fixed[number] && is_above;
            }
            let expected = (0..inputs.len()).filter(|number| needed[*number] && is_because_of_it[*number]).count();
            prop_assert_eq!(difference.rebuilds, expected);
        }
    }

    /// Whatever changes, edges and names too: what is rebuilt goes back to something that is named.
    #[test]
    fn nothing_is_rebuilt_without_a_reason(
        old in prop::collection::vec((0usize..3, 0usize..2, prop::collection::vec(any::<prop::sample::Index>(), 0..3)), 1..14),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3, 0usize..2, prop::collection::vec(any::<prop::sample::Index>(), 0..3)), 0..4),
    ) {
        let models = |all: &[(usize, usize, Vec<prop::sample::Index>)]| {
            let models: Vec<Model> = all.iter().enumerate().map(|(number, (name, flags, needs))| {
                let mut inputs: Vec<usize> =
                    if number == 0 { Vec::new() } else { needs.iter().map(|need| need.index(number)).collect() };
                // What is above is needed by the next, so that all of it is in the graph.
                inputs.extend(number.checked_sub(1));
                inputs.sort_unstable();
                inputs.dedup();
                model(&format!("n{name}"), &inputs).with("flags", &flags.to_string())
            }).collect();
            make(&models)
        };
        let mut new = old.clone();
        for (place, name, flags, needs) in edits {
            let place = place.index(new.len());
            new[place] = (name, flags, needs);
        }
        let (old, new) = (models(&old), models(&new));
        let found = compare(&old, &new);
        let (mut explained, graph) = (HashSet::new(), &new.graph);
        for difference in &found.found {
            explained.extend(graph.all_dependents(&[difference.pair.new]));
            for change in &difference.changes {
                if let Change::InputAdded { input, .. } = change {
                    explained.extend(graph.all_dependencies(&[*input]));
                }
            }
        }
        let kept = kept(graph, &old.graph);
        let (mut open, mut seen) = (new.root.clone(), HashSet::new());
        while let Some(index) = open.pop() {
            if !kept[index.position()] && seen.insert(index) {
                prop_assert!(explained.contains(&index), "{} is rebuilt for no reason", graph.derivation(index).name());
                open.extend(graph.dependencies(index));
            }
        }
        prop_assert_eq!(found.rebuilds, seen.len());
    }
}
