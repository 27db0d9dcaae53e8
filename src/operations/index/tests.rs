use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::testing::tries;

/// What the index should say, worked out in a simple way.
#[derive(Clone, Debug, Default)]
struct Model {
    deleted: Vec<u64>,
    edits: Vec<(u64, u64)>,
    /// Message, key and person, and the line of the reaction.
    reactions: Vec<(u64, String, String, u64)>,
    pinned: Vec<u64>,
}

impl Model {
    fn apply(&mut self, operation: &Operation, id: u64, sender: &str) {
        let target = operation.target;
        let person = sender.rsplit('~').next().expect("a name").to_owned();
        let is_same = |one: &(u64, String, String, u64), key: &str| {
            one.0 == target && one.1 == key && one.2 == person
        };
        match &operation.action {
            Action::Edit => self.edits.push((target, id)),
            Action::Delete => {
                self.deleted.push(target);
                self.edits.retain(|edit| edit.0 != target);
                self.reactions.retain(|reaction| reaction.0 != target);
                self.pinned.retain(|&pinned| pinned != target);
            }
            Action::React(key) => {
                if !self.reactions.iter().any(|one| is_same(one, key)) {
                    self.reactions.push((target, key.to_string(), person, id));
                }
            }
            Action::Unreact(key) => self.reactions.retain(|one| !is_same(one, key)),
            Action::Pin if !self.pinned.contains(&target) => self.pinned.push(target),
            Action::Pin => {}
            Action::Unpin => self.pinned.retain(|&pinned| pinned != target),
        }
    }
}

impl Operations {
    /// The lines of the reactions that a message has, in the order of the file.
    pub(crate) fn lines_of_reactions(&self, target: u64) -> Vec<u64> {
        let mut lines: Vec<u64> = self.reactions(target, None).map(|(_, line)| line).collect();
        lines.sort_unstable();
        lines
    }
}

fn check(index: &Operations, model: &Model, targets: u64) {
    for target in 1..=targets {
        assert_eq!(index.is_deleted(target), model.deleted.contains(&target), "{target}");
        let last = model.edits.iter().rev().find(|edit| edit.0 == target).map(|edit| edit.1);
        assert_eq!(index.last_edit(target), last, "{target}");
        let reactions = model.reactions.iter().filter(|reaction| reaction.0 == target);
        let lines: Vec<u64> = reactions.map(|reaction| reaction.3).collect();
        assert_eq!(index.lines_of_reactions(target), lines, "{target}");
        assert_eq!(index.is_pinned(target), model.pinned.contains(&target), "{target}");
    }
    let mut pinned = model.pinned.clone();
    pinned.sort_unstable();
    for after in [0, 1, 2, u64::MAX] {
        pinned.retain(|&id| id > after);
        assert_eq!(index.pinned_after(after).collect::<Vec<_>>(), pinned, "after {after}");
    }
}

fn action() -> impl Strategy<Value = Action> {
    let key = || prop::sample::select(vec!["a", "b", "c"]).prop_map(Box::from);
    prop_oneof![
        3 => Just(Action::Edit),
        1 => Just(Action::Delete),
        4 => key().prop_map(Action::React),
        2 => key().prop_map(Action::Unreact),
        2 => Just(Action::Pin),
        1 => Just(Action::Unpin),
    ]
}

const TARGETS: u64 = 4;

fn log() -> impl Strategy<Value = Vec<(Operation, &'static str)>> {
    let sender = prop::sample::select(vec!["ann", "bob~k3v9", "zoe~k3v9", "bob"]);
    let operation =
        (1..=TARGETS, action()).prop_map(|(target, action)| Operation { target, action });
    prop::collection::vec((operation, sender), 0..40)
}

proptest! {
    #![proptest_config(tries(200))]

    #[test]
    fn the_index_says_what_a_slow_reader_of_the_log_says(log in log()) {
        let mut index = Operations::default();
        let mut model = Model::default();
        let mut logged = Vec::new();
        let mut erased = Vec::new();
        let mut senders = HashMap::new();
        for (id, (operation, sender)) in (TARGETS + 1..).zip(log) {
            // What is decided is tried, undone and done again, as in a batch that is written.
            let asker = Asker { sender: Some(sender), standing: Standing::Admin };
            let person = Some(Person::of(sender));
            if decide(&operation, asker, Target::Message(None), &index).is_err() {
                continue;
            }
            let applied = index.apply(&operation, id, person);
            index.undo(applied);
            check(&index, &model, TARGETS);
            let _ = index.apply(&operation, id, person);
            index.push_line(id);
            if operation.action == Action::Delete {
                erased.push(operation.target);
                erased.extend(index.forget(operation.target));
            }
            model.apply(&operation, id, sender);
            check(&index, &model, TARGETS);
            senders.insert(id, sender);
            logged.push(LoggedOperation { id, operation: Some(operation) });
        }
        let mut again = Operations::default();
        prop_assert_eq!(again.replay(logged.clone(), |id| senders.get(&id).map(|&s| s.to_owned())), erased);
        check(&again, &model, TARGETS);
        // The edits of deleted messages are erased from the log, and it says the same without them.
        let kept = logged.into_iter().filter(|one| !model.is_erased(one)).collect::<Vec<_>>();
        let mut later = Operations::default();
        later.replay(kept, |id| senders.get(&id).map(|&sender| sender.to_owned()));
        check(&later, &model, TARGETS);
    }
}

impl Model {
    fn is_erased(&self, logged: &LoggedOperation) -> bool {
        let operation = logged.operation.as_ref().expect("each is an operation");
        operation.action == Action::Edit && self.deleted.contains(&operation.target)
    }
}

#[test]
fn what_is_tried_can_be_undone_in_the_reverse_order() {
    let mut index = Operations::default();
    let react = |key: &str| Operation { target: 1, action: Action::React(key.into()) };
    let ann = Some(Person::of("ann"));
    let _ = index.apply(&react("a"), 2, ann);
    let _ = index.apply(&Operation { target: 1, action: Action::Pin }, 3, None);
    let all = [
        react("a"),
        react("b"),
        Operation { target: 1, action: Action::Unreact("a".into()) },
        Operation { target: 1, action: Action::Pin },
        Operation { target: 1, action: Action::Unpin },
        Operation { target: 1, action: Action::Edit },
        Operation { target: 1, action: Action::Delete },
    ];
    let applied: Vec<_> = (4..).zip(&all).map(|(id, one)| index.apply(one, id, ann)).collect();
    assert!(index.is_deleted(1) && !index.is_pinned(1));
    applied.into_iter().rev().for_each(|applied| index.undo(applied));
    assert!(!index.is_deleted(1) && index.is_pinned(1));
    assert_eq!((index.lines_of_reactions(1), index.last_edit(1)), (vec![2], None));
}

#[test]
fn a_log_that_people_wrote_by_hand_does_what_it_may() {
    let line =
        |id, text: &str| LoggedOperation::of(id, text.as_bytes()).expect("its first key is $op");
    let log = [
        line(3, r#"{"$op":"delete","id":9}"#),
        line(4, r#"{"$op":"delete","id":4}"#),
        line(5, r#"{"$op":"delete","id":3}"#),
        line(6, r#"{"$op":"delete","id":1.0}"#),
        line(7, r#"{"$op":"typing"}"#),
        line(8, r#"{"$op":"react","id":1,"key":"a"}"#),
        line(9, r#"{"$op":"pin","id":1}"#),
        line(10, r#"{"$op":"delete","id":2}"#),
        line(11, r#"{"$op":"edit","id":2,"data":1}"#),
    ];
    let mut index = Operations::default();
    // The edit that came too late says nothing, and is to be erased with the message.
    assert_eq!(index.replay(log, |_| None), [2, 11]);
    assert!((3..=11).all(|id| index.is_operation(id)));
    assert!(index.is_pinned(1) && !index.is_deleted(9) && !index.is_deleted(3));
    assert!(index.lines_of_reactions(1).is_empty(), "nobody has no reaction");
    assert_eq!(index.last_edit(2), None);
}

#[test]
fn ids_are_found_below_and_above_what_fits_in_four_bytes() {
    let mut ids = Ids::default();
    let all = [1, 7, u64::from(u32::MAX), 1 << 32, (1 << 32) + 7, 1 << 52];
    all.iter().for_each(|&id| ids.push(id));
    for id in all {
        assert!(ids.contains(id) && !ids.contains(id + 2), "{id}");
    }
}

#[test]
fn nodes_of_the_index_are_as_small_as_the_module_says() {
    // A node of std's B-tree has 11 pairs; with half of them used, a pair takes twice its size.
    assert_eq!(size_of::<Reaction>() + size_of::<[u32; 2]>(), 28);
}

#[test]
fn very_many_reactions_to_a_deleted_message_are_forgotten_little_by_little() {
    let mut index = Operations::default();
    let react = |index: &mut Operations, target: u64, number: u64| {
        let react = Operation { target, action: Action::React("a".into()) };
        let _ = index.apply(&react, number, Some(Person::of(&format!("sender-{number}"))));
    };
    let many = 2 * FORGOTTEN_LATER as u64;
    (1..=many).for_each(|number| react(&mut index, 1, number));
    (1..=3).for_each(|number| react(&mut index, 2, number));
    (1..=3).for_each(|number| react(&mut index, 3, number));
    for target in [1, 2] {
        let _ = index.apply(&Operation { target, action: Action::Delete }, many + target, None);
        assert!(index.forget(target).is_empty());
    }
    let mut left = 3 + many as usize - FORGOTTEN_AT_ONCE;
    assert_eq!(index.reactions.len(), left);
    while left > 3 {
        index.forget_more();
        left = left.saturating_sub(FORGOTTEN_LATER).max(3);
        assert_eq!(index.reactions.len(), left);
    }
    index.forget_more();
    assert!(index.forgotten.is_empty());
    assert_eq!(index.lines_of_reactions(3), [1, 2, 3]);
}
