//! A headless Chromium, and the DevTools protocol to drive it with: a [`Browser`] that the tests
//! running at one time share, and a [`Tab`] for each page, with storage of its own.
//!
//! A tab has one connection and no thread: the test that asks it something reads until the answer is
//! there, and notes on the way what the page complains about. Every wait ends at a deadline, and the browser ends
//! with the last test that uses it.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket, protocol::WebSocketConfig};

use crate::support::{cut, skipped};

/// How long anything in a browser may take: it starts dozens of threads, and the machine may be busy.
pub const BROWSER_PATIENCE: Duration = Duration::from_secs(400);

/// Between two looks at a page.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

const FLAGS: [&str; 16] = [
    "--headless=new",
    "--remote-debugging-port=0",
    // It would need privileges that a container does not have; the pages here are our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-breakpad",
    // All pages count as looked at, whichever window is in front.
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--no-first-run",
    "--no-startup-window",
    "--lang=en-US",
];

// ---------------------------------------------------------------------------------------------
// The browser

/// A running Chromium; it is killed when the last test lets go of it.
pub struct Browser {
    child: Child,
    /// Its profile, and whatever else it writes.
    home: PathBuf,
    /// Such as `127.0.0.1:38211`.
    address: String,
    control: Mutex<Connection>,
}

impl Browser {
    /// The one that runs already, or a new one. None where none is installed, after saying so.
    #[track_caller]
    pub fn shared() -> Option<Arc<Browser>> {
        static RUNNING: Mutex<Weak<Browser>> = Mutex::new(Weak::new());
        // A test that failed while it started one leaves nothing broken behind.
        let mut running = RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(browser) = running.upgrade() {
            return Some(browser);
        }
        let Some(program) = installed() else {
            let thread = thread::current();
            let test = thread.name().unwrap_or("a browser test");
            skipped(test, &format!("none of {} is on the PATH", NAMES.join(", ")));
            return None;
        };
        let browser = Arc::new(Browser::start(&program));
        *running = Arc::downgrade(&browser);
        Some(browser)
    }

    fn start(program: &Path) -> Browser {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("browser-{}-{number}", std::process::id());
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&home).expect("a temporary directory");
        let mut child = Command::new(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", home.join("profile").display()))
            .env("HOME", &home)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Of its own, so that its children can be ended with it.
            .process_group(0)
            .spawn()
            .expect("the browser starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let url = match listening(stderr) {
            Ok(url) => url,
            Err(said) => {
                end(&mut child, &home);
                panic!("the browser does not listen:\n{said}");
            }
        };
        let rest = url.strip_prefix("ws://").expect("a WebSocket address");
        let (address, path) = rest.split_once('/').expect("an address has a path");
        let control = Mutex::new(Connection::open(address, path));
        Browser { child, home, address: address.into(), control }
    }

    /// An empty page that shares nothing with others.
    #[track_caller]
    pub fn tab(self: &Arc<Browser>) -> Tab {
        let (context, target) = {
            let mut control = self.control.lock().expect("no panic in a call");
            let context = control.call("Target.createBrowserContext", json!({}));
            let context = context["browserContextId"].as_str().expect("an id").to_owned();
            let target = control.call(
                "Target.createTarget",
                json!({ "url": "about:blank", "browserContextId": context, "newWindow": true }),
            );
            (context, target["targetId"].as_str().expect("an id").to_owned())
        };
        let connection = Connection::open(&self.address, &format!("devtools/page/{target}"));
        let mut tab = Tab { connection, context, browser: self.clone() };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({}));
        }
        tab.call("Emulation.setFocusEmulationEnabled", json!({ "enabled": true }));
        tab
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.child, &self.home);
    }
}

fn installed() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    let files = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    files.into_iter().find(|file| file.is_file())
}

/// The address that a browser prints once it listens, or all it printed instead.
fn listening(stderr: impl std::io::Read + Send + 'static) -> Result<String, String> {
    let (sender, lines) = crossbeam_channel::unbounded();
    // It goes on reading, or the browser would stop at a full pipe.
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let deadline = Instant::now() + BROWSER_PATIENCE;
    let mut said = String::new();
    while let Ok(line) = lines.recv_deadline(deadline) {
        if let Some(url) = line.strip_prefix("DevTools listening on ") {
            return Ok(url.trim().into());
        }
        said += &line;
        said.push('\n');
    }
    Err(said)
}

/// Ends a browser with all its processes and removes what it wrote.
fn end(child: &mut Child, home: &Path) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
    // The last of its processes may still be writing for a moment.
    let deadline = Instant::now() + BROWSER_PATIENCE;
    while fs::remove_dir_all(home).is_err() && home.exists() && Instant::now() < deadline {
        thread::sleep(LOOK_AGAIN);
    }
}

// ---------------------------------------------------------------------------------------------
// A page in it

/// A page and its storage; both end with it. A page that has complained fails its test then.
pub struct Tab {
    connection: Connection,
    /// Whose cookies and storage it has: nobody else's.
    context: String,
    browser: Arc<Browser>,
}

impl Tab {
    /// A command of the protocol.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.connection.call(method, params)
    }

    /// The value of an expression in the page; of a promise, what it comes to.
    #[track_caller]
    pub fn ask(&mut self, expression: &str) -> Value {
        match self.try_ask(expression) {
            Ok(value) => value,
            Err(why) => panic!("{expression}: {why}"),
        }
    }

    fn try_ask(&mut self, expression: &str) -> Result<Value, String> {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.connection.try_call("Runtime.evaluate", params)?;
        match answer.get("exceptionDetails") {
            Some(details) => Err(details.to_string()),
            None => Ok(answer["result"]["value"].take()),
        }
    }

    /// Waits until an expression is true in the page.
    #[track_caller]
    pub fn until(&mut self, what: &str, expression: &str) {
        self.waits_for(what, expression, |value| *value == true);
    }

    /// Waits until an expression has this value in the page.
    #[track_caller]
    pub fn comes_to(&mut self, expression: &str, value: impl Into<Value>) {
        let wanted = value.into();
        let what = format!("{expression} is {wanted}");
        self.waits_for(&what, expression, |value| *value == wanted);
    }

    /// Waits until an expression has a value in the page that is not null, and gives it.
    #[track_caller]
    pub fn gives(&mut self, what: &str, expression: &str) -> Value {
        self.waits_for(what, expression, |value| !value.is_null())
    }

    #[track_caller]
    fn waits_for(&mut self, what: &str, expression: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + BROWSER_PATIENCE;
        loop {
            // It may fail while one page goes and the next comes.
            let last = match self.try_ask(expression) {
                Ok(value) if is_it(&value) => return value,
                last => last,
            };
            if Instant::now() > deadline {
                let page = self.try_ask("document.body.innerText");
                let page = page.map_or_else(|why| why, |text| text.to_string());
                panic!("still waiting until {what}: {last:?}; the page: {}", cut(&page));
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Runs a script in each page that the tab will show, before any script of the page.
    #[track_caller]
    pub fn prepares(&mut self, script: &str) {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": script }));
    }

    /// Goes to an address and waits until the page is there.
    #[track_caller]
    pub fn goes_to(&mut self, url: &str) {
        self.ask("window.isOld = true");
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert_eq!(answer.get("errorText"), None, "cannot go to {url}");
        self.is_loaded();
    }

    #[track_caller]
    pub fn reloads(&mut self) {
        self.ask("window.isOld = true");
        self.call("Page.reload", json!({}));
        self.is_loaded();
    }

    #[track_caller]
    fn is_loaded(&mut self) {
        let is_new = "!window.isOld && document.readyState === 'complete'";
        self.until("the new page is loaded", is_new);
    }

    /// What the page complained about since the last time: uncaught exceptions, what its policy
    /// stopped, dialogs, crashes.
    #[track_caller]
    pub fn complaints(&mut self) -> Vec<String> {
        // An answer comes behind everything that was said before it.
        self.ask("0");
        std::mem::take(&mut self.connection.complaints)
    }

    /// The addresses that the page has connected to by WebSocket, oldest first.
    #[track_caller]
    pub fn sockets(&mut self) -> &[String] {
        self.ask("0");
        &self.connection.sockets
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        let complaints = if thread::panicking() { Vec::new() } else { self.complaints() };
        if let Ok(mut control) = self.browser.control.lock() {
            let id = json!({ "browserContextId": self.context });
            let _ = control.try_call("Target.disposeBrowserContext", id);
        }
        assert!(complaints.is_empty(), "the page complains: {complaints:#?}");
    }
}

// ---------------------------------------------------------------------------------------------
// The protocol

/// Commands one after the other, and the events that come meanwhile.
struct Connection {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    complaints: Vec<String>,
    /// The addresses that the page has connected to by WebSocket.
    sockets: Vec<String>,
}

impl Connection {
    #[track_caller]
    fn open(address: &str, path: &str) -> Connection {
        let stream = TcpStream::connect(address).expect("the browser takes connections");
        stream.set_read_timeout(Some(BROWSER_PATIENCE)).expect("a socket takes a timeout");
        stream.set_nodelay(true).expect("a socket takes TCP_NODELAY");
        // Pictures of any size.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let url = format!("ws://{address}/{path}");
        let (socket, _) = tungstenite::client::client_with_config(url, stream, Some(config))
            .unwrap_or_else(|error| panic!("the browser does not shake hands: {error}"));
        Connection { socket, last_id: 0, complaints: Vec::new(), sockets: Vec::new() }
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        match self.try_call(method, params) {
            Ok(result) => result,
            Err(why) => panic!("{method}: {why}"),
        }
    }

    fn try_call(&mut self, method: &str, params: Value) -> Result<Value, String> {
        let id = self.send(method, params)?;
        loop {
            let text = match self.socket.read() {
                Ok(Message::Text(text)) => text,
                Ok(_) => continue,
                Err(error) => return Err(format!("no answer: {error}")),
            };
            let mut message: BTreeMap<String, Value> =
                serde_json::from_str(&text).expect("the protocol is JSON");
            if let Some(event) = message.get("method").and_then(Value::as_str) {
                self.note(event, &message["params"])?;
            } else if message["id"] == id {
                return match message.get("error") {
                    Some(error) => Err(error.to_string()),
                    None => Ok(message.remove("result").expect("a result or an error")),
                };
            }
        }
    }

    fn send(&mut self, method: &str, params: Value) -> Result<u64, String> {
        self.last_id += 1;
        let text = json!({ "id": self.last_id, "method": method, "params": params }).to_string();
        self.socket.send(Message::text(text)).map_err(|error| error.to_string())?;
        Ok(self.last_id)
    }

    fn note(&mut self, event: &str, params: &Value) -> Result<(), String> {
        let complaint = match event {
            "Runtime.exceptionThrown" => &params["exceptionDetails"],
            // A server that is away is the network's error, and some tests want it.
            "Log.entryAdded"
                if params["entry"]["level"] == "error"
                    && params["entry"]["source"] != "network" =>
            {
                &params["entry"]
            }
            "Page.javascriptDialogOpening" => {
                // Nothing in the page goes on until somebody answers.
                self.send("Page.handleJavaScriptDialog", json!({ "accept": true }))?;
                params
            }
            "Network.webSocketCreated" => {
                self.sockets.push(params["url"].as_str().expect("an address").into());
                return Ok(());
            }
            "Inspector.targetCrashed" => return Err("the page crashed".into()),
            _ => return Ok(()),
        };
        self.complaints.push(format!("{event} {}", cut(&complaint.to_string())));
        Ok(())
    }
}
