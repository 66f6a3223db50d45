//! A proxy before a store's server that makes chosen requests fail in chosen ways.
//!
//! ```text
//!   client ──► read the request ──► first rule that matches and is not used up ──► server
//!                                        │ answers itself, breaks off, alters the answer …
//! ```
//!
//! One request a connection. Heads pass unchanged, so signatures stay valid.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const LARGEST_HEAD: usize = 64 << 10;
const SOCKET_TIME: Duration = Duration::from_mins(1);
const HELD_NAP: Duration = Duration::from_millis(10);

/// A request as rules see it.
#[derive(Debug, Clone)]
pub struct Request {
    /// `PUT`.
    pub method: String,
    /// `/bucket/key`.
    pub path: String,
    /// What follows the `?`, or nothing.
    pub query: String,
}

impl Request {
    /// A request for one key, told by the key's end.
    pub fn is(&self, method: &str, end: &str) -> bool {
        self.method == method && self.path.ends_with(end)
    }

    /// A part of an upload.
    pub fn is_part(&self) -> bool {
        self.method == "PUT" && self.query.contains("partNumber=")
    }

    /// The end of an upload in parts.
    pub fn is_complete(&self) -> bool {
        self.method == "POST" && self.query.contains("uploadId=")
    }

    /// A listing.
    pub fn is_list(&self) -> bool {
        self.method == "GET" && self.query.contains("list-type=2")
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Answered with this status and error code; the server never sees it.
    Answer(u16, &'static str),
    /// The connection breaks before the server sees it.
    Reset,
    /// The server does it; the answer is this status and error code.
    LoseAnswer(u16, &'static str),
    /// The server does it; then the connection breaks without an answer.
    LoseAnswerAndReset,
    /// Only so many bytes of the answer's body arrive.
    CutShort(usize),
    /// Passed on after a while.
    Delay(Duration),
    /// Passed on when the proxy is healed.
    Hold,
    /// Passed on after a while, but answered at once with this status: it arrives late.
    Late(Duration, u16, &'static str),
    /// Never answered.
    Hang,
    /// An answer "not found" becomes "forbidden", as for those who may not list.
    HideMissing,
}

type Matches = Box<dyn Fn(&Request) -> bool + Send + Sync>;

struct Rule {
    matches: Matches,
    skip: AtomicUsize,
    left: AtomicUsize,
    hits: Arc<AtomicUsize>,
    fault: Fault,
}

/// Counts how often a rule was used.
#[derive(Clone)]
pub struct Hits(Arc<AtomicUsize>);

impl Hits {
    /// The count.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct State {
    rules: Mutex<Vec<Arc<Rule>>>,
    seen: Mutex<Vec<Request>>,
    /// How often it was healed.
    healed: AtomicUsize,
    stop: AtomicBool,
}

/// A running proxy. Stopped when dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// Starts one before a server.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), state) = (client, shared.clone()) else { continue };
                // A connection that breaks is what this is for.
                thread::spawn(move || drop(serve(client, server, &state)));
            }
        });
        Self { address, state }
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes the next `times` matching requests fail. Rules are tried in the order in which they were added.
    pub fn fail(&self, times: usize, fault: Fault, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Hits {
        self.fail_after(0, times, fault, matches)
    }

    /// The same, but lets the first `skip` matching requests pass.
    pub fn fail_after(
        &self,
        skip: usize,
        times: usize,
        fault: Fault,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) -> Hits {
        let hits = Arc::new(AtomicUsize::new(0));
        self.state.rules.lock().unwrap().push(Arc::new(Rule {
            matches: Box::new(matches),
            skip: AtomicUsize::new(skip),
            left: AtomicUsize::new(times),
            hits: hits.clone(),
            fault,
        }));
        Hits(hits)
    }

    /// Forgets all rules, and lets go what was held.
    pub fn heal(&self) {
        self.state.rules.lock().unwrap().clear();
        self.state.healed.fetch_add(1, Ordering::SeqCst);
    }

    /// How many requests so far were such.
    pub fn count(&self, matches: impl Fn(&Request) -> bool) -> usize {
        self.state.seen.lock().unwrap().iter().filter(|request| matches(request)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        // Wakes the listener up, so that it sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut client: TcpStream, server: SocketAddr, state: &State) -> io::Result<()> {
    client.set_read_timeout(Some(SOCKET_TIME))?;
    let Some((head, body)) = read_head(&mut client)? else { return Ok(()) };
    let request = parse(&head)?;
    state.seen.lock().unwrap().push(request.clone());
    let healed = state.healed.load(Ordering::SeqCst);
    let fault = choose(&request, state);
    if let Some(Fault::Reset) = fault {
        // Closing with bytes unread makes the system send a reset.
        return Ok(());
    }
    let mut message = [head.as_bytes(), &body].concat();
    let missing = content_length(&head).saturating_sub(body.len());
    let start = message.len();
    message.resize(start + missing, 0);
    client.read_exact(&mut message[start..])?;
    let pass = || exchange(server, &message);
    match fault {
        None | Some(Fault::Reset) => client.write_all(&pass()?),
        Some(Fault::Answer(status, code)) => client.write_all(&answer(status, code)),
        Some(Fault::LoseAnswer(status, code)) => {
            pass()?;
            client.write_all(&answer(status, code))
        }
        Some(Fault::LoseAnswerAndReset) => pass().map(drop),
        Some(Fault::CutShort(bytes)) => {
            let whole = pass()?;
            let body = find(&whole, b"\r\n\r\n").map_or(0, |at| at + 4);
            client.write_all(&whole[..whole.len().min(body + bytes)])
        }
        Some(Fault::Delay(time)) => {
            thread::sleep(time);
            client.write_all(&pass()?)
        }
        Some(Fault::Hold) => {
            while state.healed.load(Ordering::SeqCst) == healed && !state.stop.load(Ordering::SeqCst) {
                thread::sleep(HELD_NAP);
            }
            client.write_all(&pass()?)
        }
        Some(Fault::Late(time, status, code)) => {
            client.write_all(&answer(status, code))?;
            drop(client);
            thread::sleep(time);
            pass().map(drop)
        }
        Some(Fault::Hang) => {
            // Until the client gives up.
            let _ = client.read(&mut [0]);
            Ok(())
        }
        Some(Fault::HideMissing) => {
            let whole = pass()?;
            let is_missing = find(&whole, b" 404 ").is_some_and(|at| at < 16);
            client.write_all(&if is_missing { answer(403, "AccessDenied") } else { whole })
        }
    }
}

fn choose(request: &Request, state: &State) -> Option<Fault> {
    let rules = state.rules.lock().unwrap();
    for rule in rules.iter().filter(|rule| (rule.matches)(request)) {
        let take = |count: &AtomicUsize| count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if take(&rule.skip).is_ok() {
            continue;
        }
        if take(&rule.left).is_ok() {
            rule.hits.fetch_add(1, Ordering::SeqCst);
            return Some(rule.fault);
        }
    }
    None
}

/// The head up to the empty line, and what came of the body with it.
fn read_head(client: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            let head = String::from_utf8(bytes).map_err(io::Error::other)?;
            return Ok(Some((head, body)));
        }
        let count = client.read(&mut buffer)?;
        if count == 0 || bytes.len() > LARGEST_HEAD {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
}

fn parse(head: &str) -> io::Result<Request> {
    let mut words = head.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other("no request line"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request { method: method.to_owned(), path: path.to_owned(), query: query.to_owned() })
}

fn content_length(head: &str) -> usize {
    let lengths = head.lines().filter_map(|line| line.split_once(':'));
    let mut length =
        lengths.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim());
    length.next().and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Sends a request and takes the whole answer; the server closes after it.
fn exchange(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(server)?;
    server.set_read_timeout(Some(SOCKET_TIME))?;
    server.write_all(message)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

fn answer(status: u16, code: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>said by the proxy</Message></Error>");
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Fault\r\nContent-Length: {length}\r\nETag: \"0\"\r\nConnection: close");
    format!("{head}\r\n\r\n{body}").into_bytes()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
