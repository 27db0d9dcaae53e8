//! `--cluster` in a server that is built without the cargo feature `cluster`: no address is one.
//!
//! Since there is no value of [`EngineUrl`], the compiler leaves out what is written for a cluster.

use std::{fmt, str::FromStr};

/// The address of an engine: there is none.
#[derive(Clone, Copy, Debug)]
pub enum EngineUrl {}

impl FromStr for EngineUrl {
    type Err = String;

    fn from_str(_: &str) -> Result<EngineUrl, String> {
        Err("this txtcord is built for one machine alone; --cluster needs one that is built with the \
             cargo feature cluster"
            .into())
    }
}

impl fmt::Display for EngineUrl {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
