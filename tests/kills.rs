//! T1, short form: kill -9 of the real daemon at random while readers check every read (G1, G2, G4).
//! `KILLS=10000` makes it long.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;

use crate::support::daemon::Host;
use crate::support::until;

const TARGETS: usize = 8;

fn key(host: &Host) -> Vec<u8> {
    let jwks: Value = serde_json::from_str(&host.read("state/embedded/trial/jwks.json")).unwrap();
    let decode = |name: &str| URL_SAFE_NO_PAD.decode(jwks["keys"][0][name].as_str().unwrap()).unwrap();
    [vec![4], decode("x"), decode("y")].concat()
}

/// What is wrong with a read; nothing where it is a whole token of ours that is still good.
fn fault(path: &PathBuf, key: &[u8]) -> Option<String> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let now = jiff::Timestamp::now().as_second();
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) => return Some(format!("missing: {error}")),
    };
    let meta = file.metadata().unwrap();
    let text = std::io::read_to_string(file).unwrap();
    if meta.permissions().mode() & 0o7777 != 0o640 || meta.uid() != rustix::process::geteuid().as_raw() {
        return Some(format!("mode {:o}, owner {}", meta.permissions().mode(), meta.uid()));
    }
    let Some((signed, signature)) = text.rsplit_once('.') else { return Some(format!("{} bytes, no token", text.len())) };
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    if UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(signed.as_bytes(), &signature).is_err() {
        return Some("the signature does not fit".into());
    }
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?).ok()?;
    let exp = claims["exp"].as_i64().unwrap();
    (exp <= now).then(|| format!("ended {} s ago", now - exp))
}

#[test]
fn g1_g2_g4_no_reader_sees_a_bad_token_whenever_the_daemon_is_killed() {
    let kills: u32 = std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let targets: String = (0..TARGETS)
        .map(|n| format!("  - {{name: t{n}, serviceAccount: ci/t{n}, deliver: [{{file: {{path: HERE/out/t{n}, mode: \"0640\"}}}}]}}\n"))
        .collect();
    // Long enough to be killed in between, short enough that each life of the daemon rotates.
    let head = "clusters: {trial: {embedded: {}}}\ndefaults: {cluster: trial, duration: 60s, rotate: {at: 5%, splay: 1s}}\ntargets:\n";
    let mut host = Host::new(&format!("{head}{targets}"));
    host.start();
    until("all are delivered", 30, || (0..TARGETS).all(|n| host.path(&format!("out/t{n}")).exists()));
    let key = Arc::new(key(&host));
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..2)
        .map(|reader| {
            let paths: Vec<PathBuf> = (0..TARGETS).map(|n| host.path(&format!("out/t{n}"))).collect();
            let (stop, reads, key) = (Arc::clone(&stop), Arc::clone(&reads), Arc::clone(&key));
            std::thread::spawn(move || {
                let mut bad = Vec::new();
                while !stop.load(Ordering::Relaxed) && bad.len() < 5 {
                    for path in paths.iter().skip(reader).step_by(2) {
                        reads.fetch_add(1, Ordering::Relaxed);
                        bad.extend(fault(path, &key).map(|fault| format!("{}: {fault}", path.display())));
                    }
                }
                bad
            })
        })
        .collect();
    for kill in 0..kills {
        // From the middle of the start to the middle of a batch of rotations.
        std::thread::sleep(Duration::from_millis(u64::from(kill * 37 % 400)));
        host.kill();
        host.start_with(&[]);
    }
    until("the daemon answers", 30, || host.run(&["status", "-o", "json"]).stdout.contains("\"pid\""));
    stop.store(true, Ordering::Relaxed);
    let bad: Vec<String> = readers.into_iter().flat_map(|r| r.join().unwrap()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    until("every target is fresh", 30, || host.json(&["status"])["targets"].as_array().unwrap().iter().all(|t| t["state"] != "retrying"));
    assert_eq!(host.stop(), Some(0));
    let orphans: Vec<_> = std::fs::read_dir(host.path("out"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .filter(|n| n.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(orphans.is_empty(), "{orphans:?}");
    let mut booked = std::collections::HashSet::new();
    let lines = host.records();
    for line in lines.iter().filter(|l| matches!(l["kind"].as_str(), Some("rotated" | "adopted"))) {
        assert!(booked.insert(line["jti"].to_string()), "booked twice: {line}");
    }
    tokenferry::record::chain::verify(&host.path("state/records"), None).unwrap();
    println!("{kills} kills, {} reads, {} rotations, 0 bad", reads.load(Ordering::Relaxed), booked.len());
}
