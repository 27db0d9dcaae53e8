//! Who a request is from, as far as it proves that: nobody, a pseudonym, or a name.

use std::sync::Arc;

use http::{Request, StatusCode, header};

use super::{
    pseudonym::{self, Pseudonym},
    rules::Rules,
    token::{self, TokenHash},
};
use crate::http::{HttpRefusal, query::parameters};

/// A verified sender, as it is written beside its messages: `ann`, or `ann~k3v9q2m7x4ab`.
pub type Sender = Arc<str>;

/// Who a request is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It proves nothing. What stands in its messages is a claim.
    Nobody,
    /// It has a key. A request without that key cannot be from the same pseudonym.
    Pseudonym(Pseudonym),
    /// It has a token that the operator gave out.
    Named {
        /// The name that the access file gives the token.
        name: Arc<str>,
        /// The token. The rights of the name are this caller's as long as the file has the token.
        token: TokenHash,
    },
}

impl Identity {
    /// The identity that a request proves. Where it has a token, `as=` and `key=` count for nothing.
    ///
    /// # Errors
    /// 401 when the token is not in the access file, 400 when the key makes no pseudonym.
    pub fn of(request: &Request<()>, rules: Option<&Rules>) -> Result<Identity, HttpRefusal> {
        if let Some(token) = token_of(request)? {
            let token = token::hash(&token);
            let name = rules.and_then(|rules| rules.name_of(&token)).ok_or_else(unknown_token)?;
            return Ok(Identity::Named { name, token });
        }
        let key = match request.headers().get("txtcord-key") {
            Some(key) => Some(key.as_bytes().to_vec()),
            None => last(request, "key").map(|key| key.bytes()),
        };
        let Some(key) = key else { return Ok(Identity::Nobody) };
        let Some(name) = last(request, "as") else {
            return Err(HttpRefusal::bad("a key goes with a name: as=NAME&key=SECRET"));
        };
        Ok(Identity::Pseudonym(pseudonym::of(&name.text()?, &key)?))
    }

    /// The sender that stands beside its messages.
    pub fn sender(&self) -> Option<Sender> {
        match self {
            Identity::Nobody => None,
            Identity::Pseudonym(pseudonym) => Some(pseudonym.sender.clone()),
            Identity::Named { name, .. } => Some(name.clone()),
        }
    }

    /// Who it is, whatever else it calls itself; `None` for nobody.
    pub(super) fn person(&self) -> Option<Arc<str>> {
        match self {
            Identity::Nobody => None,
            Identity::Pseudonym(pseudonym) => Some(pseudonym.person().into()),
            Identity::Named { name, .. } => Some(name.clone()),
        }
    }
}

/// The token of a request, from its header or, where a browser can send none, from its query.
fn token_of(request: &Request<()>) -> Result<Option<Vec<u8>>, HttpRefusal> {
    let mut fields = request.headers().get_all(header::AUTHORIZATION).iter();
    if let Some(field) = fields.next() {
        let (scheme, token) = field.as_bytes().split_at(field.as_bytes().len().min(6));
        // Another scheme is for a proxy in between.
        if scheme.eq_ignore_ascii_case(b"Bearer") {
            let token = token.strip_prefix(b" ").unwrap_or_default().trim_ascii();
            return match token.is_empty() || fields.next().is_some() {
                true => Err(unknown_token()),
                false => Ok(Some(token.to_vec())),
            };
        }
    }
    Ok(last(request, "token").map(|token| token.bytes()))
}

fn last(request: &Request<()>, name: &str) -> Option<crate::http::query::Parameter> {
    let query = request.uri().query().unwrap_or_default();
    parameters(query).filter(|parameter| parameter.name == name).last()
}

fn unknown_token() -> HttpRefusal {
    let sentence = "the server does not know this token; ask its operator for another one";
    HttpRefusal::new(StatusCode::UNAUTHORIZED, sentence).with(header::WWW_AUTHENTICATE, "Bearer")
}
