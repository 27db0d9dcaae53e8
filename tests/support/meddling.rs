//! strace, which makes the system calls of a running server fail or wait.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
};

use super::{
    server::Server,
    system::{shell, skipped},
};

/// strace, holding the server's system calls and doing something to them until it is dropped.
pub struct Meddling {
    strace: Child,
}

impl Meddling {
    /// Ends strace itself at once, after it has killed the server: it would wait for threads that
    /// are gone.
    pub fn ends_with_the_server(mut self) {
        let _ = self.strace.kill();
    }
}

impl Drop for Meddling {
    fn drop(&mut self) {
        // A signal that lets it take its hands off the server before it goes.
        shell(&format!("kill -INT {} 2> /dev/null || true", self.strace.id()));
        let _ = self.strace.wait();
    }
}

/// Injects into the running server, say `fdatasync,fsync:error=EIO`; None where that is not
/// possible, after saying so.
#[track_caller]
pub fn meddle(server: &Server, test: &str, injection: &str) -> Option<Meddling> {
    let file = server.dir.file();
    // Without a path the file's descriptor is not told from the sockets.
    let path = if injection.contains("sync") { "" } else { file.to_str().expect("a UTF-8 path") };
    meddle_with(server, test, injection, path)
}

/// The same for calls that concern one path; for all calls where that is empty.
#[track_caller]
pub fn meddle_with(server: &Server, test: &str, injection: &str, path: &str) -> Option<Meddling> {
    let pid = server.pid().to_string();
    let calls = injection.split(':').next().expect("names of calls");
    let by_path = ["-P", path];
    let by_path: &[&str] = if path.is_empty() { &[] } else { &by_path };
    let strace = Command::new("strace")
        .args(["-f", "-p", &pid, "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={injection}")])
        .args(by_path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut strace = match strace {
        Ok(strace) => strace,
        Err(error) => {
            skipped(test, &format!("strace: {error}"));
            return None;
        }
    };
    let mut lines = BufReader::new(strace.stderr.take().expect("stderr is piped")).lines();
    let mut said = String::new();
    // It says so when it has every thread, or says why not and ends.
    let attached = lines.by_ref().map_while(Result::ok).any(|line| {
        said += &line;
        line.contains("attached")
    });
    // Its report must go on being read, or it stops and the server with it.
    thread::spawn(move || lines.for_each(drop));
    let meddling = Meddling { strace };
    if !attached {
        skipped(test, &said);
        return None;
    }
    Some(meddling)
}
