use super::*;
use crate::record::fold::State;
use crate::record::{Kind, SinkLine};
use crate::schedule::check::{Sources, plan};

fn target() -> Arc<Target> {
    let text = "version: 1\nclusters: {prod: {kubeconfig: /k}}\nstores: {v: {vault: {address: 'https://v', auth: {token: {file: /t}}}}}\n\
        targets: [{name: ci, cluster: prod, serviceAccount: a/b, duration: 1h, deliver: [{vault: {store: v, path: p}}, {vault: {store: v, path: q}}]}]\n";
    let sources = Sources { path: "/etc/s.yaml".into(), text: text.into(), includes: Vec::new() };
    let plan = plan(&sources, &std::collections::BTreeMap::new()).unwrap_or_else(|problems| panic!("{}", problems[0]));
    Arc::clone(plan.target("ci").unwrap())
}

fn token(jti: &str, iat: i64) -> (Token, Claims) {
    use base64::Engine;
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"iss":"i","sub":"system:serviceaccount:a:b","aud":["x"],"jti":"{jti}","iat":{iat},"exp":4000000000}}"#);
    let token = Token::new(format!("{}.{}.{}", part("{}"), part(&claims), part("s")));
    let claims = token.claims().unwrap();
    (token, claims)
}

fn shows(jti: &str) -> Look {
    Look::Seen(Box::new(Seen { sha256: jti.into(), right: true, issue: Some(jti.into()), token: None }))
}

/// As the records know the target: a token of that name was written everywhere.
fn recorded(target: &Target, jti: &str, iat: i64) -> TargetState {
    let mut state = State::default();
    let sinks = target
        .deliver
        .iter()
        .map(|place| SinkLine { sha256: Some(jti.into()), ..SinkLine::new(place.sink.kind(), place.sink.place(), Outcome::Written) });
    let mut line = Line::new(Kind::Rotated, Timestamp::from_second(iat).unwrap());
    crate::daemon::rotation::identify(&mut line, target);
    line.generation = Some(7);
    line.jti = Some(jti.into());
    line.issued_at = Timestamp::from_second(iat).ok();
    line.expires_at = Timestamp::from_second(4_000_000_000).ok();
    line.sinks = sinks.collect();
    state.apply(&line);
    state.target(&target.name).unwrap().clone()
}

#[test]
fn a_token_of_the_same_second_that_stands_everywhere_in_place_of_the_recorded_one_is_the_one_in_use() {
    let target = target();
    let state = recorded(&target, "ours", 1_700_000_000);
    let now = Timestamp::from_second(1_700_000_100).unwrap();
    let judged = |seen: [Look; 2], best: (Token, Claims)| {
        let found = judge(Finding::new(Arc::clone(&target)), Some(&state), &seen, Some(best), now);
        (found.adopted.and_then(|line| line.jti), found.copy.map(|(held, places)| (held.issue(), places)), found.mint)
    };
    let (theirs, ours) = (|| token("theirs", 1_700_000_000), || token("ours", 1_700_000_000));
    // Two members minted at once, and theirs was written last.
    assert_eq!(judged([shows("theirs"), shows("theirs")], theirs()), (Some("theirs".into()), None, None));
    assert_eq!(judged([shows("theirs"), Look::Nothing], theirs()), (Some("theirs".into()), Some(("theirs".into(), vec![1])), None));
    // As long as ours stands somewhere, or may, nothing says that it is not the one in use.
    assert_eq!(judged([shows("ours"), shows("ours")], ours()), (None, None, None));
    assert_eq!(judged([shows("theirs"), shows("ours")], ours()), (None, Some(("ours".into(), vec![0])), None));
    assert_eq!(judged([shows("theirs"), Look::Unknown], theirs()), (None, None, Some(Reason::Repair)));
    // An older one is no cure, a newer one is in use.
    assert_eq!(judged([shows("old"), shows("old")], token("old", 1_699_999_999)), (None, None, Some(Reason::Repair)));
    assert_eq!(judged([shows("new"), shows("new")], token("new", 1_700_000_001)), (Some("new".into()), None, None));
}
