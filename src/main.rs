//! The program.

use clap::Parser;

fn main() {
    let config = txtcord::config::Config::parse();
    println!("{config:?}");
}
