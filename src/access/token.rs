//! Tokens that an operator gives out. The server knows only their hashes.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};

use super::rules;

/// What a token of ours begins with, so that programs that look for leaked secrets know it.
const PREFIX: &str = "tc_";

/// How many random bytes a token is made of.
const RANDOM_BYTES: usize = 32;

/// The SHA-256 of a token. The time that a comparison takes tells nothing about the token: it depends
/// on hashes, which a stranger cannot choose.
pub type TokenHash = [u8; 32];

/// The hash of a token.
pub fn hash(token: &[u8]) -> TokenHash {
    Sha256::digest(token).into()
}

/// Makes a token for a name: the token, and the line that gives it rights in an access file.
///
/// # Errors
/// A sentence, when the name is none, or the system gives no random bytes.
pub fn new_token(name: &str) -> Result<(String, String), String> {
    rules::check_name(name)?;
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|why| format!("the system gives no random bytes: {why}"))?;
    let token = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
    let line = format!("{name}  {}  *  read,post", HEXLOWER.encode(&hash(token.as_bytes())));
    Ok((token, line))
}
