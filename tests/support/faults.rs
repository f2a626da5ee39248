//! A proxy that stands before a real server and misbehaves when told to: it refuses, is silent, drops SYNs, cuts,
//! trickles, lies, shows bad certificates, or carries a request on long after its sender gave up.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::daemon::tool;

/// What the proxy does with every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the real server answers.
    None,
    /// The port is closed.
    Refuse,
    /// Connections are taken and nothing is ever said.
    Silent,
    /// The SYN is dropped: the queue of the listening socket is full.
    Unheard,
    /// RST in the middle of the real server's answer.
    Reset,
    /// The real answer, one byte a second.
    Trickle,
    /// Half of the real answer's body, well framed.
    Truncated,
    /// An answer of 3 MiB.
    Huge,
    /// JSON that means something else.
    WrongJson,
    /// The page of a web proxy, 200.
    Page,
    /// A refusal in the server's own form, with `Retry-After` where given; `date in N` stands for the HTTP date that
    /// is N seconds ahead.
    Status(u16, Option<String>),
    /// A certificate of the right CA that has ended.
    Expired,
    /// A certificate of a CA that nobody trusts.
    UnknownCa,
    /// The request is held for that long, then carried on, whoever still waits for the answer.
    Late(Duration),
    /// Writes are kept back until [`Proxy::release`]; reads pass.
    HoldWrites,
    /// So many requests are answered; the next one is not, though the real server may have it, nor is any after it.
    Stop {
        /// How many.
        after: usize,
        /// Whether the real server gets the first that is not answered.
        lands: bool,
    },
}

/// Whose way of refusing is imitated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The Kubernetes API server.
    Kube,
    /// Vault or OpenBao.
    Vault,
    /// AWS Secrets Manager.
    Aws,
}

/// A real server.
#[derive(Debug, Clone)]
pub struct Real {
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// Its CA; without one it speaks plain HTTP.
    pub ca: Option<PathBuf>,
}

impl Real {
    /// By its URL.
    pub fn at(url: &str, ca: Option<&Path>) -> Self {
        let address = url.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { address, ca: ca.map(Path::to_owned) }
    }

    /// One request, its whole answer.
    pub fn ask(&self, request: &[u8]) -> std::io::Result<Answer> {
        let tcp = TcpStream::connect(&self.address)?;
        tcp.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut bytes = Vec::new();
        match &self.ca {
            None => {
                let mut tcp = tcp;
                tcp.write_all(request)?;
                tcp.read_to_end(&mut bytes)?;
            }
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
                    roots.add(certificate.unwrap()).unwrap();
                }
                let config = ClientConfig::builder_with_provider(ring()).with_safe_default_protocol_versions().unwrap();
                let config = config.with_root_certificates(roots).with_no_client_auth();
                let name = ServerName::try_from("127.0.0.1").unwrap();
                let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp);
                stream.write_all(request)?;
                // Not every server says goodbye in TLS.
                if let Err(error) = stream.read_to_end(&mut bytes)
                    && error.kind() != std::io::ErrorKind::UnexpectedEof
                {
                    return Err(error);
                }
            }
        }
        Answer::read(&bytes).ok_or_else(|| std::io::Error::other("the real server gave no HTTP"))
    }
}

fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// Its body, out of its chunks.
    pub body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> =
            lines.filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_lowercase(), v.trim().to_owned())).collect();
        let body = &bytes[end + 4..];
        let chunked = headers.iter().any(|(k, v)| k == "transfer-encoding" && v.contains("chunked"));
        let body = if chunked { whole(body)? } else { body.to_vec() };
        Some(Self { status, headers, body })
    }

    fn new(status: u16, kind: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type".into(), kind.into())], body }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            if !matches!(name.as_str(), "connection" | "content-length" | "transfer-encoding") {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        if self.status != 204 {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

fn whole(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = chunks.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..end]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunks.get(end + 2..end + 2 + size)?);
        chunks = chunks.get(end + 4 + size..)?;
    }
}

/// Certificates for `127.0.0.1`, made once for each run.
pub struct Certificates {
    /// The CA that the program is told to trust.
    pub ca: PathBuf,
    good: Arc<ServerConfig>,
    expired: Arc<ServerConfig>,
    unknown: Arc<ServerConfig>,
    _folder: tempfile::TempDir,
}

impl Certificates {
    /// What a server on `127.0.0.1` shows that is in order.
    pub fn good(&self) -> Arc<ServerConfig> {
        self.good.clone()
    }
}

/// The certificates of this run.
pub fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let openssl = |line: &str| drop(tool(Command::new("openssl").args(line.split(' ')).current_dir(folder.path())));
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256";
        for ca in ["ca", "other"] {
            openssl(&format!("req -x509 {key} -days 30 -keyout {ca}.key -out {ca}.crt -subj /CN={ca} -addext keyUsage=critical,keyCertSign,cRLSign"));
        }
        std::fs::write(at("ca.cnf"), "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nnew_certs_dir=.\nserial=serial\ndefault_md=sha256\npolicy=p\nx509_extensions=x\nunique_subject=no\n[p]\ncommonName=supplied\n[x]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
        std::fs::write(at("index"), "").unwrap();
        std::fs::write(at("serial"), "01\n").unwrap();
        let signed = |name: &str, ca: &str, from: &str, to: &str| {
            openssl(&format!("req -new {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
            openssl(&format!("ca -batch -notext -config ca.cnf -cert {ca}.crt -keyfile {ca}.key -in {name}.csr -out {name}.crt -startdate {from} -enddate {to}"));
            let chain = vec![CertificateDer::from_pem_file(at(&format!("{name}.crt"))).unwrap()];
            let key = PrivateKeyDer::from_pem_file(at(&format!("{name}.key"))).unwrap();
            let config = ServerConfig::builder_with_provider(ring()).with_safe_default_protocol_versions().unwrap();
            Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap())
        };
        let good = signed("good", "ca", "20200101000000Z", "20991231000000Z");
        let expired = signed("expired", "ca", "20200101000000Z", "20210101000000Z");
        let unknown = signed("unknown", "other", "20200101000000Z", "20991231000000Z");
        Certificates { ca: at("ca.crt"), good, expired, unknown, _folder: folder }
    })
}

/// A request as the proxy saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When its last byte had come.
    pub at: Instant,
    /// Whether it changes something.
    pub write: bool,
    /// The fault that it met.
    pub fault: Fault,
}

struct Shared {
    port: u16,
    real: Real,
    flavour: Flavour,
    fault: Mutex<(Fault, bool)>,
    seen: Mutex<Vec<Seen>>,
    credentials: Mutex<std::collections::BTreeSet<String>>,
    held: Mutex<Vec<Vec<u8>>>,
    over: AtomicBool,
}

/// The proxy: `https://127.0.0.1:PORT`.
pub struct Proxy {
    shared: Arc<Shared>,
}

impl Proxy {
    /// In front of a real server, without a fault.
    pub fn before(real: Real, flavour: Flavour) -> Self {
        certificates();
        let (listener, port) = free();
        let shared = Shared {
            port,
            real,
            flavour,
            fault: Mutex::new((Fault::None, false)),
            seen: Mutex::default(),
            credentials: Mutex::default(),
            held: Mutex::default(),
            over: AtomicBool::new(false),
        };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || listen(&theirs, listener));
        Self { shared }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.shared.port)
    }

    /// Sets the fault; it is in force when this returns.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = (fault, false);
        super::until("the proxy took its fault", 20, || self.shared.fault.lock().unwrap().1);
    }

    /// What it saw.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Credentials that came by: Vault tokens of requests.
    pub fn credentials(&self) -> Vec<String> {
        self.shared.credentials.lock().unwrap().iter().cloned().collect()
    }

    /// How many writes are kept back.
    pub fn held(&self) -> usize {
        self.shared.held.lock().unwrap().len()
    }

    /// Carries the writes on that were kept back; gives the real server's answers.
    pub fn release(&self) -> Vec<Answer> {
        let held = std::mem::take(&mut *self.shared.held.lock().unwrap());
        held.iter().map(|request| self.shared.real.ask(request).unwrap()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

/// A port below those that outgoing connections take, so that it stays ours while it is closed.
fn free() -> (TcpListener, u16) {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    loop {
        *next += 1;
        let port = 30_000 + (u16::try_from(std::process::id() % 2_600).unwrap() + *next * 7) % 2_700;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return (listener, port);
        }
    }
}

fn listen(shared: &Arc<Shared>, first: TcpListener) {
    let mut listener = Some(first);
    let mut fillers: Vec<TcpStream> = Vec::new();
    while !shared.over.load(Ordering::Relaxed) {
        let fault = shared.fault.lock().unwrap().0.clone();
        match fault {
            Fault::Refuse => listener = None,
            Fault::Unheard => {
                let socket = listener.get_or_insert_with(|| again(shared.port));
                rustix::net::listen(&*socket, 0).unwrap();
                let address = socket.local_addr().unwrap();
                for _ in 0..4 {
                    match TcpStream::connect_timeout(&address, Duration::from_millis(30)) {
                        Ok(filler) => fillers.push(filler),
                        Err(_) => break,
                    }
                }
            }
            _ => {
                let socket = listener.get_or_insert_with(|| again(shared.port));
                if !fillers.is_empty() {
                    rustix::net::listen(&*socket, 128).unwrap();
                    fillers.clear();
                }
            }
        }
        {
            let mut now = shared.fault.lock().unwrap();
            now.1 = now.1 || now.0 == fault;
        }
        let (Some(socket), false) = (&listener, matches!(fault, Fault::Refuse | Fault::Unheard)) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut ready = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
        let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        if rustix::event::poll(&mut ready, Some(&tick)).is_ok_and(|n| n > 0)
            && let Ok((stream, _)) = socket.accept()
        {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || serve(&shared, stream));
        }
    }
}

fn again(port: u16) -> TcpListener {
    let mut made = None;
    super::until("the port is free again", 20, || {
        made = TcpListener::bind(("127.0.0.1", port)).ok();
        made.is_some()
    });
    made.unwrap()
}

fn is(shared: &Shared, fault: &Fault) -> bool {
    shared.fault.lock().unwrap().0 == *fault && !shared.over.load(Ordering::Relaxed)
}

fn serve(shared: &Shared, tcp: TcpStream) {
    let fault = shared.fault.lock().unwrap().0.clone();
    if fault == Fault::Silent {
        while is(shared, &fault) {
            std::thread::sleep(Duration::from_millis(50));
        }
        return;
    }
    let certificates = certificates();
    let config = match fault {
        Fault::Expired => &certificates.expired,
        Fault::UnknownCa => &certificates.unknown,
        _ => &certificates.good,
    };
    let _ = tcp.set_read_timeout(Some(Duration::from_secs(60)));
    let Ok(raw) = tcp.try_clone() else { return };
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), tcp);
    let Some(request) = read(&mut stream) else { return };
    let (at, write) = (Instant::now(), is_write(&request, shared.flavour));
    let head = String::from_utf8_lossy(&request);
    let tokens = head.lines().filter_map(|l| l.split_once(':')).filter(|(k, _)| k.eq_ignore_ascii_case("x-vault-token"));
    shared.credentials.lock().unwrap().extend(tokens.map(|(_, v)| v.trim().to_owned()).filter(|v| !v.is_empty()));
    let index = {
        let mut seen = shared.seen.lock().unwrap();
        seen.push(Seen { at, write, fault: fault.clone() });
        seen.iter().filter(|seen| seen.fault == fault).count() - 1
    };
    if let Fault::Stop { after, lands } = fault
        && index >= after
    {
        if lands && index == after {
            shared.real.ask(&request).unwrap();
        }
        while is(shared, &fault) {
            std::thread::sleep(Duration::from_millis(50));
        }
        return;
    }
    if fault == Fault::HoldWrites && write {
        shared.held.lock().unwrap().push(request);
        while is(shared, &fault) {
            std::thread::sleep(Duration::from_millis(50));
        }
        return;
    }
    if let Fault::Late(wait) = fault {
        std::thread::sleep(wait);
    }
    let Some(answer) = answer(shared, &fault, &request) else { return };
    let bytes = answer.bytes();
    match fault {
        Fault::Reset => {
            let _ = stream.write_all(&bytes[..bytes.len() - answer.body.len() / 2]).and_then(|()| stream.flush());
            std::thread::sleep(Duration::from_millis(20));
            let _ = rustix::net::sockopt::set_socket_linger(&raw, Some(Duration::ZERO));
        }
        Fault::Trickle => {
            for byte in bytes {
                if !is(shared, &fault) || stream.write_all(&[byte]).and_then(|()| stream.flush()).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        _ => {
            let _ = stream.write_all(&bytes).and_then(|()| stream.flush());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
}

fn answer(shared: &Shared, fault: &Fault, request: &[u8]) -> Option<Answer> {
    let json = if shared.flavour == Flavour::Aws { "application/x-amz-json-1.1" } else { "application/json" };
    Some(match fault {
        Fault::Huge => Answer::new(200, json, format!("{{\"data\":\"{}\"}}", "y".repeat(3 << 20)).into_bytes()),
        Fault::WrongJson => Answer::new(200, json, br#"{"status":{},"lease":[1,2,3]}"#.to_vec()),
        Fault::Page => Answer::new(200, "text/html", b"<html>Welcome to the guest network</html>".to_vec()),
        Fault::Status(code, wish) => {
            let body = match shared.flavour {
                Flavour::Kube => {
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "said by the test", "code": code})
                }
                Flavour::Vault => json!({"errors": ["said by the test"]}),
                Flavour::Aws => json!({"__type": "SaidByTheTest", "message": "said by the test"}),
            };
            let mut answer = Answer::new(*code, json, body.to_string().into_bytes());
            let dated = |wish: &str| wish.strip_prefix("date in ").map(|seconds| http_date(seconds.parse().unwrap()));
            let wish = wish.as_ref().map(|wish| dated(wish).unwrap_or_else(|| wish.clone()));
            answer.headers.extend(wish.map(|wish| ("retry-after".into(), wish)));
            answer.headers.push(("date".into(), http_date(0)));
            answer
        }
        Fault::Truncated => {
            let mut real = shared.real.ask(request).ok()?;
            real.body.truncate(real.body.len() / 2);
            real
        }
        _ => shared.real.ask(request).ok()?,
    })
}

/// The time in that many seconds as HTTP has it.
fn http_date(seconds: i64) -> String {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
}

/// A whole request, made to end its connection.
fn read(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8(head).ok()?;
    let value =
        |name: &str| text.lines().find_map(|l| l.split_once(':').filter(|(k, _)| k.eq_ignore_ascii_case(name))).map(|(_, v)| v.trim());
    let mut body = vec![0; value("content-length").and_then(|v| v.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let kept = text.trim_end().split("\r\n").filter(|l| !l.to_lowercase().starts_with("connection:")).collect::<Vec<_>>().join("\r\n");
    Some([kept.as_bytes(), b"\r\nConnection: close\r\n\r\n", &body].concat())
}

fn is_write(request: &[u8], flavour: Flavour) -> bool {
    let head = String::from_utf8_lossy(&request[..request.len().min(4096)]).to_lowercase();
    match flavour {
        Flavour::Kube => (head.starts_with("post ") && head.contains("/token")) || head.starts_with("patch "),
        Flavour::Vault => head.starts_with("post ") && !head.contains("/auth/"),
        Flavour::Aws => ["putsecretvalue", "createsecret", "updatesecret"].iter().any(|action| head.contains(action)),
    }
}
