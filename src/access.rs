//! Who sent a request, and what the sender may do: its [`Caller`], decided once, before the request
//! goes to either door, the WebSocket's or HTTP's.
//!
//! [`Access`] is the one owner of the rules of the access file and of the limits for strangers. The
//! rules can change while the server runs, so a right is looked up when it is used. No lock here is
//! held while anything waits for a disk or a client.

use std::{
    fmt,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use http::{Request, StatusCode, header};

use crate::{config::Config, http::HttpRefusal, name::Name, operations::Standing, route::Resource};

mod address;
mod identity;
mod origin;
mod post_rate;
mod pseudonym;
mod rules;
mod token;

use self::{
    address::Addresses,
    post_rate::{PostRate, Subject},
    rules::Rules,
};
pub use self::{
    address::Counted,
    identity::{Identity, Sender},
    post_rate::TooFast,
    rules::{Right, Rights, RulesError},
    token::new_token,
};

/// The rules and limits of one server.
#[derive(Debug)]
pub struct Access {
    /// The access file, if the operator named one.
    path: Option<PathBuf>,
    /// What it says; `None` without an access file.
    rules: RwLock<Option<Arc<Rules>>>,
    /// How often the file was read again.
    generation: AtomicU64,
    allowed_origins: Vec<String>,
    addresses: Addresses,
    post_rate: Option<PostRate>,
}

impl Access {
    /// Reads the access file, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, other users may write to it, or a line of it makes no sense.
    pub fn new(config: &Config) -> Result<Access, RulesError> {
        let path = config.access.clone();
        let rules = path.as_deref().map(Rules::read).transpose()?;
        Ok(Access {
            path,
            rules: RwLock::new(rules.map(Arc::new)),
            generation: AtomicU64::new(0),
            allowed_origins: config.allow_origins.clone(),
            addresses: Addresses::new(config),
            post_rate: PostRate::new(config),
        })
    }

    /// Reads the access file again. Clients that lost a right are not told by this.
    ///
    /// # Errors
    /// As with [`Access::new`]. The rules are then as they were.
    pub fn read_again(&self) -> Result<(), RulesError> {
        let Some(path) = &self.path else { return Ok(()) };
        let rules = Arc::new(Rules::read(path)?);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Some(rules);
        self.generation.fetch_add(1, SeqCst);
        Ok(())
    }

    /// How many rules the access file has; `None` without one.
    pub fn rule_count(&self) -> Option<usize> {
        self.rules().map(|rules| rules.count())
    }

    /// A number that is another one after the rules have changed.
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// Counts one more connection of an address, as long as the connection keeps the count.
    pub fn count_connection(&self, peer: IpAddr) -> Counted {
        self.addresses.count(peer)
    }

    /// The caller of a request for a resource, which came from `peer`.
    ///
    /// # Errors
    /// 403 when it is a web page that may not ask, 401 when it has a token that the access file does
    /// not have, 400 when it has a key that makes no pseudonym.
    pub fn caller(
        self: &Arc<Access>,
        request: &Request<()>,
        resource: &Resource,
        peer: IpAddr,
    ) -> Result<Caller, HttpRefusal> {
        let headers = request.headers();
        let page = origin::page(headers, resource, &self.allowed_origins)?.map(str::to_owned);
        let is_asked = !matches!(
            resource,
            Resource::Page(_) | Resource::Health | Resource::Ready | Resource::Metrics
        );
        let identity = match is_asked {
            true => Identity::of(request, self.rules().as_deref())?,
            false => Identity::Nobody,
        };
        let address = self.addresses.client(peer, headers);
        Ok(Caller { page, who: Arc::new(Who { identity, address, access: self.clone() }) })
    }

    fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The origin of the web page that asks, when it is a page that says so.
    pub page: Option<String>,
    who: Arc<Who>,
}

#[derive(Debug)]
struct Who {
    identity: Identity,
    /// The address that the request came from, or that a trusted proxy names.
    address: IpAddr,
    access: Arc<Access>,
}

impl Caller {
    /// The verified sender of what the caller says; `None` for nobody.
    pub fn sender(&self) -> Option<Sender> {
        self.who.identity.sender()
    }

    /// The person that the caller is, whatever name it gives: of a pseudonym, only the letters that
    /// follow from its key count. `None` for nobody.
    pub fn person(&self) -> Option<Arc<str>> {
        self.who.identity.person()
    }

    /// The address that the caller asks from.
    pub fn address(&self) -> IpAddr {
        self.who.address
    }

    /// The rules and limits that the caller is subject to.
    pub fn access(&self) -> &Arc<Access> {
        &self.who.access
    }

    /// What it may do with a channel, as the rules are now.
    pub fn rights(&self, channel: &Name) -> Rights {
        match self.who.access.rules() {
            None => Rights::WITHOUT_RULES,
            Some(rules) => rules.rights(&self.who.identity, channel),
        }
    }

    /// Whether it may do something with a channel, as the rules are now.
    pub fn may(&self, right: Right, channel: &Name) -> bool {
        self.rights(channel).has(right)
    }

    /// Checks that it may do something with a channel.
    ///
    /// # Errors
    /// 403, with a sentence that names the right and the channel. A caller that may neither read
    /// the channel nor write to it must only be told that it is not there.
    pub fn check(&self, right: Right, channel: &Name) -> Result<(), Forbidden> {
        match self.may(right, channel) {
            true => Ok(()),
            false => {
                Err(Forbidden { right, channel: channel.clone(), has_rules: self.has_rules() })
            }
        }
    }

    /// Checks that it may make a channel: without an access file everybody may.
    ///
    /// # Errors
    /// As with [`Caller::check`].
    pub fn check_making(&self, channel: &Name) -> Result<(), Forbidden> {
        let right = if self.has_rules() { Right::Admin } else { Right::Post };
        self.check(right, channel)
    }

    /// What it may do with operations in a channel, as the rules are now.
    pub fn standing(&self, channel: &Name) -> Standing {
        match (self.may(Right::Admin, channel), self.has_rules()) {
            (true, _) => Standing::Admin,
            (false, true) => Standing::Member,
            (false, false) => Standing::Open,
        }
    }

    /// Counts messages that the caller wants to post.
    ///
    /// # Errors
    /// When these are more than `--post-rate` allows now; none of them counts then.
    pub fn count_posts(&self, messages: u32) -> Result<(), TooFast> {
        let Some(rate) = &self.who.access.post_rate else { return Ok(()) };
        let subject = match &self.who.identity {
            Identity::Named { name, .. } => Subject::Name(name.clone()),
            Identity::Pseudonym(pseudonym) => Subject::Pseudonym(pseudonym.person().into()),
            Identity::Nobody => Subject::Address(address::shared(self.who.address)),
        };
        rate.take(subject, messages)
    }

    fn has_rules(&self) -> bool {
        self.who.access.path.is_some()
    }
}

/// A right is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    right: Right,
    channel: Name,
    has_rules: bool,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forbidden { right, channel, has_rules } = self;
        let right = right.word();
        match has_rules {
            true => write!(out, "this needs the right {right} in the channel {channel}"),
            false => write!(
                out,
                "this needs the right {right} in the channel {channel}, which nobody has without an \
                 access file; see the server's --access"
            ),
        }
    }
}

impl From<Forbidden> for HttpRefusal {
    fn from(forbidden: Forbidden) -> HttpRefusal {
        HttpRefusal::new(StatusCode::FORBIDDEN, forbidden.to_string())
    }
}

impl From<TooFast> for HttpRefusal {
    fn from(too_fast: TooFast) -> HttpRefusal {
        let sentence = too_fast.to_string();
        match too_fast.retry_after {
            Some(_) => HttpRefusal::new(StatusCode::TOO_MANY_REQUESTS, sentence)
                .with(header::RETRY_AFTER, too_fast.whole_seconds()),
            // No wait helps: only a shorter body does.
            None => HttpRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence),
        }
    }
}

/// What one client may do in the channel that it joined.
#[derive(Clone, Debug)]
pub struct Permit {
    caller: Caller,
    channel: Name,
}

impl Permit {
    /// The permit of a caller in a channel.
    pub fn new(caller: Caller, channel: Name) -> Permit {
        Permit { caller, channel }
    }

    /// The verified sender of what the client says.
    pub fn sender(&self) -> Option<Sender> {
        self.caller.sender()
    }

    /// Whether the client may read the channel, as the rules are now.
    pub fn may_read(&self) -> bool {
        self.caller.may(Right::Read, &self.channel)
    }

    /// Checks that the client may post to the channel, as the rules are now.
    ///
    /// # Errors
    /// As with [`Caller::check`].
    pub fn check_post(&self) -> Result<(), Forbidden> {
        self.caller.check(Right::Post, &self.channel)
    }

    /// What the client may do with operations, as the rules are now.
    pub fn standing(&self) -> Standing {
        self.caller.standing(&self.channel)
    }

    /// Counts one message that the client wants to post.
    ///
    /// # Errors
    /// As with [`Caller::count_posts`].
    pub fn count_post(&self) -> Result<(), TooFast> {
        self.caller.count_posts(1)
    }

    /// The rules that it follows.
    pub fn access(&self) -> &Arc<Access> {
        self.caller.access()
    }
}

#[cfg(test)]
mod tests;
