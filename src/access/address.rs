//! The addresses that clients come from: which proxies are believed, and how many connections each
//! address has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use http::HeaderMap;
use ipnet::IpNet;

use crate::config::Config;

/// How many connections above `--max-clients-per-address` are served, to be told that there are too
/// many. Any more are dropped without a word.
const EXTRA_CONNECTIONS: usize = 16;

/// The bits of an IPv6 address that one customer of a provider has to himself.
const CUSTOMER_BITS: u32 = 64;

type Counts = Arc<Mutex<HashMap<IpAddr, Connections>>>;

/// The connections of one address. One that was refused stays for a while, and takes no place from
/// those that are served meanwhile.
#[derive(Debug, Default)]
struct Connections {
    served: usize,
    refused: usize,
}

/// The addresses of all connections, where they are counted.
#[derive(Debug)]
pub struct Addresses {
    trusted_proxies: Vec<IpNet>,
    max_clients: Option<usize>,
    /// The connections of each address. There are no more entries than connections.
    counts: Counts,
}

/// How one more connection fits among those of its address.
#[derive(Debug)]
pub enum Counted {
    /// It is served. `None` where connections are not counted.
    Within(Option<AddressCount>),
    /// It is told that its address has too many.
    Above(AddressCount),
    /// It is dropped: its address has far too many.
    FarAbove,
}

/// One connection of an address, until this is dropped.
#[derive(Debug)]
pub struct AddressCount {
    counts: Counts,
    address: IpAddr,
    /// The one of the two counts that it is in.
    part: fn(&mut Connections) -> &mut usize,
}

impl Drop for AddressCount {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.get_mut(&self.address);
        let of_address = of_address.expect("a connection is counted until it ends");
        *(self.part)(of_address) -= 1;
        if of_address.served + of_address.refused == 0 {
            counts.remove(&self.address);
        }
    }
}

impl Addresses {
    pub fn new(config: &Config) -> Addresses {
        Addresses {
            trusted_proxies: config.trust_proxies.clone(),
            max_clients: config.max_clients_per_address.map(|most| most.get()),
            counts: Counts::default(),
        }
    }

    /// The address that a request came from: the peer's or, where that is a trusted proxy, the last
    /// one in `X-Forwarded-For` that is not a trusted proxy, too.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.is_trusted(peer) {
            return peer;
        }
        let fields: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        let entries = fields
            .iter()
            .rev()
            .flat_map(|field| field.to_str().unwrap_or_default().rsplit(',').map(str::trim));
        let mut last = peer;
        for entry in entries {
            // What stands before an entry that is no address is not to be believed.
            let Some(address) = address_in(entry) else { return last };
            last = address;
            if !self.is_trusted(address) {
                break;
            }
        }
        last
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&address))
    }

    /// Counts one more connection of an address. Connections of a trusted proxy are counted when a
    /// request on them says whom they are for ([`Addresses::client`]).
    pub fn count(&self, peer: IpAddr) -> Counted {
        let peer = peer.to_canonical();
        let Some(most) = self.max_clients.filter(|_| !self.is_trusted(peer)) else {
            return Counted::Within(None);
        };
        let address = shared(peer);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = counts.entry(address).or_default();
        let count_in = |part| AddressCount { counts: self.counts.clone(), address, part };
        if of_address.served < most {
            of_address.served += 1;
            return Counted::Within(Some(count_in(|of_address| &mut of_address.served)));
        }
        if of_address.refused < EXTRA_CONNECTIONS {
            of_address.refused += 1;
            return Counted::Above(count_in(|of_address| &mut of_address.refused));
        }
        Counted::FarAbove
    }
}

/// The part of an address that all limits are for.
pub fn shared(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let bits = u128::from(address) & (u128::MAX << (128 - CUSTOMER_BITS));
            Ipv6Addr::from(bits).into()
        }
    }
}

/// The address of an entry in `X-Forwarded-For`, which some proxies write with a port.
fn address_in(entry: &str) -> Option<IpAddr> {
    let address = entry.parse().ok().or_else(|| {
        let without_port = entry.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
        let bare = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
        without_port.or_else(bare)
    })?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests;
