//! Metrics over the optional listener, by the names that dashboards build on.

use std::process::Command;

use crate::support::daemon::{Host, tool};
use crate::support::until;

#[test]
fn metrics_and_probes_tell_what_status_tells() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut host = Host::new(&format!(
        "
metrics: {{listen: '127.0.0.1:{port}'}}
clusters: {{trial: {{embedded: {{}}}}}}
targets: [{{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, compliance: {{maxAge: 2h}}, deliver: [{{file: {{path: HERE/out/one}}}}]}}]
"
    ));
    host.start();
    until("it is delivered", 20, || host.target("one")["state"] == "fresh");
    let get = |path: &str| tool(Command::new("curl").args(["-sS", "--fail", &format!("http://127.0.0.1:{port}{path}")]));
    let metrics = get("/metrics");
    for line in [
        "tokenferry_targets{state=\"fresh\"} 1",
        "tokenferry_target_info{target=\"one\",cluster=\"trial\",namespace=\"ci\",service_account=\"one\"} 1",
        "tokenferry_rotations_total{result=\"rotated\",reason=\"new\"} 1",
        "tokenferry_delivery_attempts_total{sink=\"file\",outcome=\"written\"} 1",
        "tokenferry_mint_duration_seconds_count{cluster=\"trial\"} 1",
        "tokenferry_delivery_duration_seconds_count{sink=\"file\"} 1",
        "tokenferry_deliveries_owed 0",
        "tokenferry_records_lost_total 0",
        "tokenferry_records_writable 1",
        "tokenferry_start_timestamp_seconds ",
        "tokenferry_target_max_age_seconds{target=\"one\"} 7200",
        "tokenferry_retry_after_ignored_total{kind=\"cluster\",name=\"trial\"} 0",
        "tokenferry_schedule_last_reload_successful 1",
        "tokenferry_build_info{version=\"",
        "tokenferry_target_expiry_timestamp_seconds{target=\"one\"} ",
        "tokenferry_target_issued_timestamp_seconds{target=\"one\"} ",
        "tokenferry_target_next_rotation_timestamp_seconds{target=\"one\"} ",
        "tokenferry_target_proven_timestamp_seconds{target=\"one\"} ",
    ] {
        assert!(metrics.contains(line), "no `{line}` in:\n{metrics}");
    }
    for series in ["tokenferry_target_trouble{", "tokenferry_target_failures{", "tokenferry_alerts_", "tokenferry_monitored_"] {
        assert!(!metrics.contains(series), "a daemon that is well, and has no such key, has no {series}");
    }
    assert_eq!((get("/livez"), get("/readyz")), ("ok\n".into(), "ok\n".into()));
    assert!(get("/status").contains("\"fresh\""));
}
