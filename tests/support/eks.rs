//! The authenticator of EKS, as a webhook of a real API server: it takes a signed address of STS for a token, computes the
//! signature itself (AWS Signature Version 4), and asks STS (moto) who somebody is whose key it does not know.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::daemon::tool;
use super::faults::certificates;

/// A key that is known here.
pub const KEY: (&str, &str) = ("AKIATEST", "the+secret/of=this");
/// Whose it is.
pub const USER: &str = "arn:aws:iam::123456789012:user/host";

/// The authenticator of the cluster `prod` in `eu-central-1`.
pub struct Authenticator {
    /// The API server's kubeconfig for it.
    pub kubeconfig: String,
    /// What it said of each token.
    pub verdicts: Arc<Mutex<Vec<Result<String, String>>>>,
    /// Where STS is, once it is known.
    pub sts: Arc<Mutex<String>>,
}

impl Authenticator {
    /// Starts it.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("https://{}/authenticate", listener.local_addr().unwrap());
        let (verdicts, sts): (Arc<Mutex<Vec<_>>>, Arc<Mutex<String>>) = Default::default();
        let (noted, asked) = (verdicts.clone(), sts.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, asked) = (noted.clone(), asked.clone());
                std::thread::spawn(move || serve(stream, &noted, &asked));
            }
        });
        Self { kubeconfig: super::servers::kubeconfig(&server, &certificates().ca, json!({})), verdicts, sts }
    }
}

fn serve(stream: TcpStream, verdicts: &Mutex<Vec<Result<String, String>>>, sts: &Mutex<String>) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(certificates().good()).unwrap(), stream);
    while let Some(body) = request(&mut stream) {
        let review: Value = serde_json::from_slice(&body).unwrap();
        let verdict = judge(review["spec"]["token"].as_str().unwrap_or_default(), &sts.lock().unwrap());
        verdicts.lock().unwrap().push(verdict.clone());
        let status = match verdict {
            Ok(who) => json!({"authenticated": true, "user": {"username": who}}),
            Err(why) => json!({"authenticated": false, "error": why}),
        };
        let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.as_bytes())).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

/// The body of the next request.
fn request(stream: &mut impl Read) -> Option<Vec<u8>> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn judge(token: &str, sts: &str) -> Result<String, String> {
    let coded = token.strip_prefix("k8s-aws-v1.").ok_or("no token of EKS")?;
    let address = URL_SAFE_NO_PAD.decode(coded).map_err(|e| e.to_string())?;
    let address = String::from_utf8(address).map_err(|e| e.to_string())?;
    let query = address.strip_prefix("https://sts.eu-central-1.amazonaws.com/?").ok_or("not signed for STS of this region")?;
    let mut pairs: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let said: BTreeMap<&str, String> = pairs.iter().map(|(key, value)| (*key, plain(value))).collect();
    let says = |key: &str| said.get(key).map(String::as_str).unwrap_or_default();
    if says("Action") != "GetCallerIdentity" || says("Version") != "2011-06-15" || says("X-Amz-SignedHeaders") != "host;x-k8s-aws-id" {
        return Err("it asks for something else, or is signed for no cluster".into());
    }
    if says("X-Amz-Expires") != "60" {
        return Err("it is good for too long".into());
    }
    let key = says("X-Amz-Credential").split('/').next().unwrap_or_default();
    if key != KEY.0 {
        if !said.contains_key("X-Amz-Security-Token") {
            return Err("nobody's key".into());
        }
        return who(sts, says("X-Amz-Credential")).ok_or_else(|| "STS does not know it".into());
    }
    pairs.retain(|(name, _)| *name != "X-Amz-Signature");
    pairs.sort_unstable();
    let canonical: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let sha = |text: &[u8]| hex(digest::digest(&digest::SHA256, text).as_ref());
    let canonical = format!(
        "GET\n/\n{}\nhost:sts.eu-central-1.amazonaws.com\nx-k8s-aws-id:prod\n\nhost;x-k8s-aws-id\n{}",
        canonical.join("&"),
        sha(b"")
    );
    let date = says("X-Amz-Date");
    let day = date.get(..8).unwrap_or_default();
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{day}/eu-central-1/sts/aws4_request\n{}", sha(canonical.as_bytes()));
    let sign = |key: Vec<u8>, text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes()).as_ref().to_vec();
    let signing = [day, "eu-central-1", "sts", "aws4_request"].into_iter().fold(format!("AWS4{}", KEY.1).into_bytes(), sign);
    if hex(&sign(signing, &text)) == says("X-Amz-Signature") { Ok(USER.into()) } else { Err("the signature is another one".into()) }
}

/// Whom STS knows by that key.
fn who(sts: &str, credential: &str) -> Option<String> {
    let header = format!("Authorization: AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=x");
    let said =
        tool(Command::new("curl").args(["-s", "--noproxy", "*", "-H", &header, "-d", "Action=GetCallerIdentity&Version=2011-06-15", sts]));
    Some(said.split_once("<Arn>")?.1.split_once("</Arn>")?.0.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        match (first, after.get(..2).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
