//! What systemd is told: the real protocol on a socket of the test's.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::daemon::Host;
use crate::support::until;

#[test]
fn systemd_is_told_of_readiness_reloads_the_watchdog_and_the_end() {
    let mut host = Host::new(
        "
clusters: {trial: {embedded: {}}}
targets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one}}]}]
",
    );
    let socket = UnixDatagram::bind(host.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let path = host.path("notify");
    host.start_with(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "1500000")]);
    let heard = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("systemd was told nothing for 20 s");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let wait_for = |word: &str| loop {
        let text = heard();
        if text.lines().any(|l| l.starts_with(word)) {
            return text;
        }
    };
    let ready = wait_for("READY=1");
    assert!(ready.contains("STATUS=serving 1 targets"), "{ready}");
    // An idle daemon feeds the watchdog from its loop, at least twice in its time.
    for _ in 0..3 {
        let begun = std::time::Instant::now();
        wait_for("WATCHDOG=1");
        assert!(begun.elapsed() < Duration::from_millis(1200));
    }
    assert_eq!(host.run(&["reload"]).code, Some(0));
    let reloading = wait_for("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    wait_for("READY=1");
    until("the first delivery", 10, || host.path("out/one").exists());
    host.signal(rustix::process::Signal::TERM);
    wait_for("STOPPING=1");
    assert_eq!(host.stop(), Some(0));
}
