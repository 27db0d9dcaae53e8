use clap::{CommandFactory, FromArgMatches, builder::Resettable};

use super::*;

/// Parses flags as if no environment variable were set.
fn parse(flags: &[&str]) -> Result<Config, clap::Error> {
    let command = Config::command().mut_args(|flag| flag.env(Resettable::Reset));
    let matches = command.try_get_matches_from(["txtcord"].iter().chain(flags))?;
    Config::from_arg_matches(&matches)
}

#[test]
fn the_flags_are_consistent() {
    Config::command().debug_assert();
}

#[test]
fn the_defaults_are_what_the_readme_promises() {
    let config = parse(&[]).expect("no flag is needed");
    assert_eq!(config.listen, "127.0.0.1:8000".parse().expect("it is valid"));
    assert_eq!(config.file, PathBuf::from("messages.txt"));
    assert_eq!(config.channels_folder(), PathBuf::from("channels"));
    assert_eq!(config.max_channels, 1000);
    assert_eq!(config.fsync, Fsync::Always);
    assert_eq!(config.max_message, 1 << 20);
    assert_eq!(config.max_clients, 10_000);
    assert_eq!(config.ping_interval, Duration::from_secs(20));
    assert_eq!(config.stall_timeout, Duration::from_secs(10));
    assert_eq!(config.history_limit, None);
    assert!(!config.no_stamps);
    assert!(config.allow_origins.is_empty());
    assert_eq!(config.log_level, LevelFilter::Info);
    assert_eq!(config.log_file, None);
}

#[test]
fn every_flag_is_also_an_environment_variable_of_its_name() {
    for flag in Config::command().get_arguments() {
        let name = flag.get_long().unwrap_or_default();
        if matches!(name, "" | "help" | "version") {
            continue;
        }
        let variable = format!("TXTCORD_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(flag.get_env().and_then(|env| env.to_str()), Some(&*variable));
    }
}

#[test]
fn the_help_fits_a_screen() {
    let help = Config::command().render_help().to_string();
    assert!(help.lines().count() <= 50, "{} lines", help.lines().count());
    assert!(help.lines().all(|line| line.len() <= 100));
}

#[test]
fn each_task_has_help() {
    for task in ["health", "token"] {
        for help in ["-h", "--help"] {
            let error = Config::try_parse_from(["txtcord", task, help]).expect_err("it is help");
            assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{task} {help}: {error}");
        }
    }
}

#[test]
fn human_units_are_understood() {
    let config = parse(&[
        "--max-message=64KiB",
        "--ping-interval=1m",
        "--stall-timeout=500ms",
        "--fsync=1s",
        "--listen=[::1]:0",
        "--allow-origin=https://a.example,null",
        "--allow-origin=*",
        "--history-limit=0",
        "--log-level=DEBUG",
    ]);
    let config = config.expect("all of it is valid");
    assert_eq!(config.max_message, 64 << 10);
    assert_eq!(config.ping_interval, Duration::from_secs(60));
    assert_eq!(config.stall_timeout, Duration::from_millis(500));
    assert_eq!(config.fsync, Fsync::EverySecond);
    assert_eq!(config.listen, "[::1]:0".parse().expect("it is valid"));
    assert_eq!(config.allow_origins, ["https://a.example", "null", "*"]);
    assert_eq!(config.history_limit, Some(0));
    assert_eq!(config.log_level, LevelFilter::Debug);
    assert_eq!(parse(&["--max-message=64MiB"]).expect("it is valid").max_message, 64 << 20);
    assert_eq!(parse(&["--fsync=never"]).expect("it is valid").fsync, Fsync::Never);
    assert!(parse(&["--listen=localhost:8000"]).expect("it is valid").listen.ip().is_loopback());
}

#[test]
fn an_error_names_the_flag_the_value_and_a_way_out() {
    #[track_caller]
    fn check(flag: &str, value: &str, expected: &str) {
        for flags in [&[&*format!("{flag}={value}")][..], &[flag, value]] {
            let error = parse(flags).expect_err("it is no valid value");
            assert_eq!(error.exit_code(), 2);
            let said = error.to_string();
            assert!(said.contains(&format!("{flag} ")) && said.contains(expected), "{said}");
            assert!(said.contains(&format!("'{value}'")), "{said}");
        }
    }
    let address = "invalid address; try 127.0.0.1:8000";
    check("--listen", "x", address);
    check("--listen", "127.0.0.1", address);
    check("--listen", "127.0.0.1:65536", address);
    check("--listen", "", address);
    check("--listen", "-1", address);
    let size = "invalid size; try 1MiB or 64KiB";
    check("--max-message", "big", size);
    check("--max-message", "-1", size);
    check("--max-message", "-1MiB", size);
    check("--max-message", "0", "must be from 1B to 64MiB");
    check("--max-message", "64.1MiB", "must be from 1B to 64MiB");
    check("--max-message", "99999PiB", "must be from 1B to 64MiB");
    let time = "invalid time; try 20s or 1m";
    check("--ping-interval", "20", time);
    check("--ping-interval", "soon", time);
    check("--ping-interval", "-5s", time);
    check("--stall-timeout", "-1", time);
    check("--stall-timeout", "0s", "must be longer than 0s");
    check("--fsync", "sometimes", "possible values: always, 1s, never");
    check("--fsync", "-1", "possible values: always, 1s, never");
    let level = "must be off, error, warn, info, debug or trace";
    check("--log-level", "loud", level);
    check("--log-level", "-1", level);
    let clients = "must be a whole number from 1 to 4194304";
    check("--max-clients", "-1", clients);
    check("--max-clients", "0", clients);
    check("--max-clients", "4194305", clients);
    check("--max-clients", "many", clients);
    check("--max-clients", "--fsync", clients);
    let messages = "must be a whole number from 0 to 18446744073709551615";
    check("--history-limit", "-5", messages);
    check("--history-limit", "all", messages);
    check("--history-limit", "18446744073709551616", messages);
    check("--file", "-1", "must be a path; one that begins with a hyphen is written ./-1");
    check(
        "--log-file",
        "--file",
        "must be a path; one that begins with a hyphen is written ./--file",
    );
    let origin = "must be an origin such as https://chat.example, null, or * for all";
    check("--allow-origin", "-1", origin);
    check("--allow-origin", "chat.example", origin);
}

#[test]
fn an_error_does_not_repeat_the_password_of_an_engine() {
    for url in ["http://ann:secret@host/0", "secret@host/0", "redis+sentinel://:secret@host"] {
        let said = parse(&["--cluster", url]).expect_err("it is no address").to_string();
        assert!(!said.contains("secret"), "{said}");
        assert!(said.contains("@host") && said.contains("--cluster"), "{said}");
    }
}

#[test]
fn an_engine_that_this_build_cannot_reach_is_refused_with_the_name_of_the_feature() {
    #[track_caller]
    fn check(url: &str, is_built_in: bool, feature: &str) {
        match parse(&["--cluster", url]) {
            Ok(config) => assert!(is_built_in && config.cluster.is_some(), "{url} is taken"),
            Err(error) => {
                let said = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(
                    !is_built_in && said.contains(&format!("cargo feature {feature}")),
                    "{said}"
                );
            }
        }
    }
    let has_cluster = cfg!(feature = "cluster");
    check("redis://127.0.0.1:6379", has_cluster, "cluster");
    let feature = if has_cluster { "cluster-tls" } else { "cluster" };
    check("rediss://127.0.0.1:6379", cfg!(feature = "cluster-tls"), feature);
}

#[test]
fn a_negative_number_is_never_taken_for_an_unknown_flag() {
    for flag in Config::command().get_arguments().filter(|flag| flag.get_action().takes_values()) {
        let name = format!("--{}", flag.get_long().expect("a flag has a name"));
        let said = parse(&[&name, "-1"]).expect_err("no flag takes it").to_string();
        assert!(said.contains(&format!("invalid value '-1' for '{name} ")), "{said}");
    }
}
