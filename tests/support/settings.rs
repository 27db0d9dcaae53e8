//! The settings of a server in the environment of the tests: no server under test may
//! have them. The benchmark includes this file too.

use std::{env, process::Command};

/// Takes every `TXTCORD_*` variable out of the environment that a program will get.
pub fn without_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"TXTCORD_") {
            command.env_remove(name);
        }
    }
}
