//! Whether an operation is accepted. It is a pure function of the lines before it and of who asks.

use super::{Action, Operation, Operations};

/// The most different keys of reactions that a message may have at a time.
pub const MOST_KEYS: usize = 20;

// The sentence of `Refusal::TooMany` says it.
const _: () = assert!(MOST_KEYS == 20);

/// The person behind a sender. A name that is known by a token is itself; a pseudonym stands for its
/// key, under whatever name, so only the letters after the `~` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Person<'a> {
    /// The name that goes with a token.
    Name(&'a str),
    /// What a pseudonym's key makes: the letters after the `~`.
    Pseudonym(&'a str),
}

impl<'a> Person<'a> {
    /// The person behind a verified sender.
    pub fn of(sender: &'a str) -> Person<'a> {
        match sender.rsplit_once('~') {
            Some((_, letters)) => Person::Pseudonym(letters),
            None => Person::Name(sender),
        }
    }
}

/// What an asker is allowed, apart from posting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The right `admin`. An operator who writes into the file by hand has it.
    Admin,
    /// An access file rules, and does not grant `admin`.
    Member,
    /// There is no access file.
    Open,
}

/// The one who asks for an operation, and may post.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The verified sender; `None` for nobody.
    pub sender: Option<&'a str>,
    /// What else it may do.
    pub standing: Standing,
}

impl Asker<'_> {
    /// The operator, who appends lines to the text file by hand.
    pub const OPERATOR: Asker<'static> = Asker { sender: None, standing: Standing::Admin };
}

/// What an operation names by its `id`.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// No line, or a hole.
    Missing,
    /// A message, and its verified sender; `None` when nobody is known.
    Message(Option<&'a str>),
}

/// Why an operation is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The asker may not do this.
    Forbidden(Forbidden),
    /// There is no message of that id that could be changed.
    NoSuchMessage,
    /// The message was deleted.
    Deleted,
    /// The message has as many different keys of reactions as it may have.
    TooMany,
}

/// What is missing to be allowed an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// An identity.
    Nobody,
    /// To be the sender of the message.
    NotTheSender,
    /// The right `admin`.
    NotAdmin,
}

impl Refusal {
    /// The sentence for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Refusal::Forbidden(Forbidden::Nobody) => {
                "an operation needs a verified sender: connect with as= and key=, or with a token"
            }
            Refusal::Forbidden(Forbidden::NotTheSender) => {
                "only the sender of a message, or who has the right admin, may do this"
            }
            Refusal::Forbidden(Forbidden::NotAdmin) => "pinning needs the right admin",
            Refusal::NoSuchMessage => {
                "there is no message of this id, or it is an operation itself"
            }
            Refusal::Deleted => "the message was deleted",
            Refusal::TooMany => "the message has 20 different reactions; take one of these",
        }
    }
}

/// Decides about an operation, with all operations before it in `index`. `target` is what its id
/// names; the sender is looked at for [`Action::needs_author`] alone.
///
/// # Errors
/// When it is not accepted.
pub fn decide(
    operation: &Operation,
    asker: Asker<'_>,
    target: Target<'_>,
    index: &Operations,
) -> Result<(), Refusal> {
    let is_admin = asker.standing == Standing::Admin;
    if asker.sender.is_none() && !is_admin {
        return Err(Refusal::Forbidden(Forbidden::Nobody));
    }
    if index.is_deleted(operation.target) {
        return Err(Refusal::Deleted);
    }
    let author = match target {
        Target::Message(author) if !index.is_operation(operation.target) => author,
        _ => return Err(Refusal::NoSuchMessage),
    };
    match &operation.action {
        Action::Edit | Action::Delete => {
            let is_author =
                author.is_some() && author.map(Person::of) == asker.sender.map(Person::of);
            if is_author || is_admin {
                return Ok(());
            }
            Err(Refusal::Forbidden(Forbidden::NotTheSender))
        }
        Action::Pin | Action::Unpin if asker.standing == Standing::Member => {
            Err(Refusal::Forbidden(Forbidden::NotAdmin))
        }
        Action::Pin | Action::Unpin => Ok(()),
        Action::React(_) | Action::Unreact(_) if asker.sender.is_none() => {
            Err(Refusal::Forbidden(Forbidden::Nobody))
        }
        Action::React(key) if !index.has_room_for(operation.target, key) => Err(Refusal::TooMany),
        Action::React(_) | Action::Unreact(_) => Ok(()),
    }
}

impl Action {
    /// Whether it depends on who wrote the message that it changes.
    pub fn needs_author(&self) -> bool {
        matches!(self, Action::Edit | Action::Delete)
    }
}

#[cfg(test)]
mod tests;
