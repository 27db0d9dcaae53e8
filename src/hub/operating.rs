//! Operations: decided before they are written, applied where they stand, and messages erased.
//!
//! The operations of a batch are decided in its order, each with those before it in the index; then
//! all of them are taken out again, since only the file decides where a line stands. A channel
//! without operations does nothing here.

use std::iter;

use super::{Hub, Post, Speaker};
use crate::{
    command::{ClientId, PostedOperations},
    journal::{Erased, Fatal},
    lines::each_line,
    operations::{
        Action, Applied, Asker, LoggedOperation, Operation, Person, Refusal, Target, decide,
    },
    wire::ErrorAnswer,
};

/// Operations of clients that were refused, in the order of what was said. Each is answered.
pub(super) type Refused = Vec<(ClientId, Refusal)>;

impl Hub {
    /// Takes out of posts what is refused of their operations, and answers that. If one operation of
    /// a request is refused, all of the request is. For posts that the engine of a cluster is to order:
    /// it takes its time, and a refusal does not wait for what was said before.
    pub(super) fn decide(&mut self, posts: Vec<Post>) -> Vec<Post> {
        let (accepted, refused) = self.sort_out(posts);
        self.answer_refused(refused);
        accepted
    }

    /// The same, but clients are still to be answered: what they said before should be shown first.
    pub(super) fn sort_out(&mut self, posts: Vec<Post>) -> (Vec<Post>, Refused) {
        let mut refused_to_clients = Refused::new();
        if posts.iter().all(|post| post.operations.is_none()) {
            return (posts, refused_to_clients);
        }
        let mut applied = Vec::new();
        let mut accepted = Vec::with_capacity(posts.len());
        for mut post in posts {
            let Some(operations) = post.operations.take() else {
                accepted.push(post);
                continue;
            };
            let before = applied.len();
            let mut refused = Vec::new();
            for (line, operation) in &operations.list {
                match self.decide_one(operation, &operations, post.sender.as_deref()) {
                    Ok(done) => applied.push(done),
                    Err(why) => refused.push((*line, why)),
                }
            }
            match (&refused[..], &post.by) {
                ([], _) => {
                    post.operations = Some(operations);
                    accepted.push(post);
                }
                ([(_, why), ..], Speaker::Request { .. }) => {
                    let why = ErrorAnswer::Refused(*why);
                    for applied in applied.drain(before..).rev() {
                        self.history.operations_mut().undo(applied);
                    }
                    self.refuse(vec![post], why);
                }
                (_, Speaker::Client(client)) => {
                    refused_to_clients.extend(refused.iter().map(|(_, why)| (*client, *why)));
                    let refused: Vec<usize> = refused.into_iter().map(|(line, _)| line).collect();
                    accepted.extend(without(post, *operations, &refused));
                }
            }
        }
        for applied in applied.into_iter().rev() {
            self.history.operations_mut().undo(applied);
        }
        (accepted, refused_to_clients)
    }

    /// Tells clients why their operations were refused.
    pub(super) fn answer_refused(&mut self, refused: Refused) {
        for (client, why) in refused {
            self.metrics.refused(1);
            let answer = ErrorAnswer::Refused(why);
            self.fanout.control(client, &answer.frame(answer.sentence()));
        }
    }

    /// Decides about one operation, and takes it into the index for those after it.
    fn decide_one(
        &mut self,
        operation: &Operation,
        operations: &PostedOperations,
        sender: Option<&str>,
    ) -> Result<Applied, Refusal> {
        let asker = Asker { sender, standing: operations.standing };
        // Stamps are looked up for lines that are there: a search goes on until it finds the line.
        let is_there = self.history.is_message(operation.target);
        let author = match operation.action.needs_author() && is_there {
            true => self.sender_of(operation.target),
            false => None,
        };
        let target = self.history.target(operation.target, author.as_deref());
        decide(operation, asker, target, self.history.operations())?;
        // No line has this id, and what is applied here is undone.
        let by = sender.map(Person::of);
        Ok(self.history.operations_mut().apply(operation, u64::MAX, by))
    }

    /// The verified sender of a message, if one is known.
    fn sender_of(&self, id: u64) -> Option<String> {
        match self.journal.stamps_from(id) {
            Some(stamps) => stamps.read().of(id).from.map(str::to_owned),
            None => self.recent.of(id).from.map(str::to_owned),
        }
    }

    /// Applies an operation that stands on the line `id` now, or notes that this line is one that cannot
    /// be done. Whether its sender may ask for it was decided before the line was written. A line that
    /// came in between may have left it nothing to do: all that read the log come to the same result.
    pub(super) fn apply_operation(
        &mut self,
        operation: Option<&Operation>,
        id: u64,
        from: Option<&str>,
    ) -> Result<(), Fatal> {
        let asker = Asker { sender: from, ..Asker::OPERATOR };
        let mut accepted = None;
        if let Some(operation) = operation.filter(|operation| operation.target < id) {
            // As a start decides it, to which a line that reads as erased may have been a message.
            let target = match self.history.held_message(operation.target) {
                Ok(true) => Target::Message(None),
                Ok(false) => Target::Missing,
                Err(error) => return Err(Fatal::Storage(error)),
            };
            let is_accepted = decide(operation, asker, target, self.history.operations()).is_ok();
            accepted = is_accepted.then_some(operation);
        }
        let index = self.history.operations_mut();
        if let Some(operation) = accepted {
            let _ = index.apply(operation, id, from.map(Person::of));
            if operation.action == Action::Delete {
                self.deleted.push(operation.target);
            }
        }
        // One that was on its way while the message was deleted would keep what the message said.
        if operation.is_some_and(|operation| index.is_late_edit(operation)) {
            self.late_edits.push(id);
        }
        index.push_line(id);
        if accepted.is_none() {
            self.warnings.refused(self.journal.path(), id);
        }
        Ok(())
    }

    /// Applies a line that another program appended, if it is an operation. It is the operator's
    /// word, so it needs no right. An operation that cannot be done means nothing.
    pub(super) fn apply_foreign_operation(&mut self, id: u64, message: &[u8]) -> Result<(), Fatal> {
        self.apply_ordered_operation(id, message, None)
    }

    /// Applies a line whose place is decided, if it is an operation.
    pub(super) fn apply_ordered_operation(
        &mut self,
        id: u64,
        message: &[u8],
        from: Option<&str>,
    ) -> Result<(), Fatal> {
        match LoggedOperation::of(id, message) {
            Some(LoggedOperation { operation, .. }) => {
                self.apply_operation(operation.as_ref(), id, from)
            }
            None => Ok(()),
        }
    }

    /// Erases the messages that were deleted, and all their edits, in the file, and takes them out of the
    /// frames that are on their way. The operations that deleted them are on disk before that.
    pub(super) fn erase_deleted(&mut self) -> Result<(), Fatal> {
        if self.deleted.is_empty() && self.late_edits.is_empty() {
            return Ok(());
        }
        // The rest of a frame that was cut is read from the file as it is now.
        self.hand_over_clients();
        let synced = self.journal.sync()?;
        self.metrics.synced(synced);
        let mut ids = std::mem::take(&mut self.late_edits);
        for target in std::mem::take(&mut self.deleted) {
            ids.push(target);
            ids.extend(self.history.operations_mut().forget(target));
        }
        ids.sort_unstable();
        ids.dedup();
        // A line may be deleted by hand that read as erased before.
        ids.retain(|&id| self.history.is_message(id));
        let lines = self.history.erase(&ids).map_err(Fatal::Storage)?;
        self.fanout.remove(&ids);
        if self.journal.erase(lines, &self.history)? == Erased::Done {
            self.note_numbering_anew();
        }
        Ok(())
    }

    /// Erases what could not be erased when it was deleted.
    pub(super) fn erase_what_is_left(&mut self) -> Result<(), Fatal> {
        if self.journal.has_unerased()
            && self.journal.erase_what_is_left(&self.history)? == Erased::Done
        {
            self.note_numbering_anew();
        }
        Ok(())
    }

    /// Makes sure of the room that is needed to erase what the posts delete; refuses those that delete
    /// if there is none.
    pub(super) fn prepare_deletes(&mut self, mut posts: Vec<Post>) -> Vec<Post> {
        let operations = posts.iter().filter_map(|post| post.operations.as_ref());
        let targets = operations.flat_map(|operations| deleted_by(operations));
        let index = self.history.operations();
        let lines = |id| iter::once(id).chain(index.edits_of(id));
        let ids: Vec<u64> = targets.flat_map(lines).collect();
        if ids.is_empty() || self.journal.announce_erasure(ids).is_ok() {
            return posts;
        }
        let deletes = |post: &mut Post| {
            post.operations.as_ref().is_some_and(|it| deleted_by(it).next().is_some())
        };
        let refused = posts.extract_if(.., deletes).collect();
        self.refuse(refused, ErrorAnswer::CannotErase);
        posts
    }
}

/// The messages that these operations delete.
fn deleted_by(operations: &PostedOperations) -> impl Iterator<Item = u64> {
    let operations = operations.list.iter().map(|(_, operation)| operation);
    operations.filter(|it| it.action == Action::Delete).map(|operation| operation.target)
}

/// A post without some of its lines, or nothing when none is left.
fn without(post: Post, operations: PostedOperations, refused: &[usize]) -> Option<Post> {
    let is_refused = |line: &usize| refused.binary_search(line).is_ok();
    let lines = each_line(&post.lines).enumerate();
    let left: Vec<_> = lines.filter(|(line, _)| !is_refused(line)).map(|(_, text)| text).collect();
    if left.is_empty() {
        return None;
    }
    let lines = left.concat();
    let moved = |line: usize| line - refused.partition_point(|&refused| refused < line);
    let list = operations.list.into_iter().filter(|(line, _)| !is_refused(line));
    let list = list.map(|(line, operation)| (moved(line), operation)).collect();
    let operations = PostedOperations::of(operations.standing, list);
    Some(Post::new(post.by, post.sender, lines, operations))
}

/// The operations of posts, each with the number of its line among all lines of the posts, from 0.
pub(super) fn posted_operations(posts: &[Post]) -> Vec<(usize, &Operation)> {
    if posts.iter().all(|post| post.operations.is_none()) {
        return Vec::new();
    }
    let mut all = Vec::new();
    let mut before = 0;
    for post in posts {
        let list = post.operations.iter().flat_map(|operations| &operations.list);
        all.extend(list.map(|(line, operation)| (before + line, operation)));
        before += post.count();
    }
    all
}

#[cfg(test)]
mod tests;
