//! The public keys that a cluster signs with (`/openid/v1/jwks`, RFC 7517), read with our own credential where
//! our account may (ClusterRole `system:service-account-issuer-discovery`), and kept for a while.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::StatusCode;
use kube::client::Body;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client::Clients;
use super::mint::send;
use super::prove::Proven;
use super::refusal::retry_after;
use super::upstream::{Upstream, Urgency, Verdict};
use crate::token::Token;
use crate::token::signature::{BadKeys, Keys, NotSigned};

const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Never read more often than that, however many tokens name a key that is not there.
const FLOOR: Duration = Duration::from_secs(5);
/// A right that is missing now may be granted; it is asked for again after that long.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// Those who waited for one answer together take it together, the answer that none came too.
const SILENT_FOR: Duration = Duration::from_millis(200);

/// What reading the keys gave.
#[derive(Clone)]
pub(super) enum Answer {
    /// They are these.
    Keys(Arc<Keys>),
    /// Our account may not read them (401, 403), there are none (404), or none that is checked here.
    NotOffered(String),
    /// The API server could not be asked.
    Unknown(String),
}

struct Read {
    at: Instant,
    answer: Answer,
}

impl Read {
    /// How long the answer may serve: as long as is asked for, but neither a refusal nor silence for ever.
    fn serves(&self, age: Duration) -> bool {
        let bound = match self.answer {
            Answer::Keys(_) => age.max(FLOOR),
            Answer::NotOffered(_) => REFUSED_FOR,
            Answer::Unknown(_) => SILENT_FOR,
        };
        self.at.elapsed() < bound
    }
}

/// The keys of one cluster as last read. Held over a read, so that many who need them ask once.
#[derive(Default)]
pub(super) struct ServedKeys(Mutex<Option<Read>>);

impl ServedKeys {
    /// Checks a token's signature against keys that are no older than `age`. Where they do not fit they are read
    /// anew once: the signing key may have changed.
    pub(super) async fn check<'a>(&self, token: &Token, age: Duration, read: impl Fn() -> BoxFuture<'a, Answer>) -> Proven {
        let mut held = self.0.lock().await;
        if !held.as_ref().is_some_and(|have| have.serves(age)) {
            *held = Some(now(read().await));
        }
        let have = held.as_ref().expect("it was read just now, or before");
        let first = judge(&have.answer, token);
        if !matches!(first, Proven::Refused(_) | Proven::Unserved(_)) || have.at.elapsed() < FLOOR {
            return first;
        }
        judge(&held.insert(now(read().await)).answer, token)
    }
}

fn now(answer: Answer) -> Read {
    Read { at: Instant::now(), answer }
}

fn judge(answer: &Answer, token: &Token) -> Proven {
    let keys = match answer {
        Answer::Keys(keys) => keys,
        Answer::NotOffered(why) => return Proven::NotOffered(why.clone()),
        Answer::Unknown(why) => return Proven::Unknown(why.clone()),
    };
    match keys.check(token.expose()) {
        Ok(_) => Proven::Signed,
        Err(why @ NotSigned::NoKey { .. }) => Proven::Unserved(why.to_string()),
        Err(why @ NotSigned::Algorithm(_)) => Proven::NotOffered(why.to_string()),
        Err(why @ (NotSigned::NotAToken(_) | NotSigned::Encoding | NotSigned::Wrong)) => Proven::Refused(why.to_string()),
    }
}

/// Reads them from the API server, in its turn.
pub(super) async fn read(clients: &Clients, upstream: &Arc<Upstream>, urgency: Urgency) -> Answer {
    let permit = upstream.enter(urgency).await;
    let (index, endpoint) = clients.best();
    let request = http::Request::get("/openid/v1/jwks")
        .header(http::header::ACCEPT, "application/jwk-set+json, application/json")
        .body(Body::empty())
        .expect("a constant request is well formed");
    let answer = match tokio::time::timeout(CALL_WITHIN, send(endpoint, &endpoint.own, upstream, request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) => {
            clients.failed(index);
            permit.end(failure.verdict());
            return Answer::Unknown(failure.message);
        }
        Err(_) => {
            clients.failed(index);
            permit.end(Verdict::Failed);
            return Answer::Unknown(format!("{}: no answer within {} s", endpoint.url, CALL_WITHIN.as_secs()));
        }
    };
    let (answer, verdict) = match answer {
        (StatusCode::OK, _, body) => match Keys::of(&body) {
            Ok(keys) => (Answer::Keys(Arc::new(keys)), Verdict::Healthy),
            Err(why @ BadKeys::None) => (Answer::NotOffered(format!("{}/openid/v1/jwks: {why}", endpoint.url)), Verdict::Healthy),
            Err(why @ BadKeys::Json { .. }) => (Answer::Unknown(format!("{}/openid/v1/jwks: {why}", endpoint.url)), Verdict::Failed),
        },
        (status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND), ..) => {
            (Answer::NotOffered(format!("{}: the cluster's keys are not to be had", status.as_u16())), Verdict::Healthy)
        }
        (StatusCode::TOO_MANY_REQUESTS, headers, _) => {
            (Answer::Unknown("429: the API server asks for less load".into()), Verdict::Overloaded(retry_after(&headers)))
        }
        (other, ..) => (Answer::Unknown(format!("{}/openid/v1/jwks answered {}", endpoint.url, other.as_u16())), Verdict::Failed),
    };
    permit.end(verdict);
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    const LONG: Duration = Duration::from_secs(300);

    struct Signer {
        kid: &'static str,
        pair: EcdsaKeyPair,
    }

    impl Signer {
        fn new(kid: &'static str) -> Self {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &SystemRandom::new()).unwrap();
            Self { kid, pair }
        }

        fn token(&self) -> Token {
            let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
            let text = format!("{}.{}", part(&format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.kid)), part(r#"{"sub":"a"}"#));
            let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
            Token::new(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
        }

        fn served(&self) -> Answer {
            let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            let set = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"{}","x":"{x}","y":"{y}"}}]}}"#, self.kid);
            Answer::Keys(Arc::new(Keys::of(set.as_bytes()).unwrap()))
        }
    }

    /// An API server that counts how often it is asked.
    struct Api {
        answer: std::sync::Mutex<Answer>,
        asked: AtomicUsize,
    }

    impl Api {
        fn new(answer: Answer) -> Self {
            Self { answer: std::sync::Mutex::new(answer), asked: AtomicUsize::new(0) }
        }

        fn read(&self) -> BoxFuture<'_, Answer> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = self.answer.lock().unwrap().clone();
            Box::pin(async move { answer })
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_tokens_of_one_key_read_the_keys_once() {
        let (one, keys) = (Signer::new("one"), ServedKeys::default());
        let api = Api::new(one.served());
        for _ in 0..1000 {
            assert_eq!(keys.check(&one.token(), LONG, || api.read()).await, Proven::Signed);
        }
        assert_eq!(api.asked(), 1);
        tokio::time::advance(LONG).await;
        assert_eq!(keys.check(&one.token(), LONG, || api.read()).await, Proven::Signed);
        assert_eq!(api.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_has_them_read_anew_but_a_storm_of_unknown_keys_does_not() {
        let (one, two, keys) = (Signer::new("one"), Signer::new("two"), ServedKeys::default());
        let api = Api::new(one.served());
        assert_eq!(keys.check(&one.token(), LONG, || api.read()).await, Proven::Signed);
        *api.answer.lock().unwrap() = two.served();
        tokio::time::advance(FLOOR).await;
        assert_eq!(keys.check(&two.token(), LONG, || api.read()).await, Proven::Signed);
        assert_eq!(api.asked(), 2);
        for _ in 0..1000 {
            assert!(matches!(keys.check(&one.token(), LONG, || api.read()).await, Proven::Unserved(_)));
        }
        assert_eq!(api.asked(), 2, "a storm");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_replaced_under_its_own_name_shows_as_a_wrong_signature() {
        let (old, new, keys) = (Signer::new("same"), Signer::new("same"), ServedKeys::default());
        let api = Api::new(old.served());
        assert_eq!(keys.check(&old.token(), LONG, || api.read()).await, Proven::Signed);
        *api.answer.lock().unwrap() = new.served();
        tokio::time::advance(FLOOR).await;
        // Asked with the age of the beat: the copy is too old to answer for the old token.
        assert!(matches!(keys.check(&old.token(), FLOOR, || api.read()).await, Proven::Refused(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_right_is_asked_for_once_a_minute_and_silence_is_not_kept() {
        let (one, keys) = (Signer::new("one"), ServedKeys::default());
        let api = Api::new(Answer::NotOffered("403".into()));
        for _ in 0..100 {
            assert!(matches!(keys.check(&one.token(), LONG, || api.read()).await, Proven::NotOffered(_)));
        }
        assert_eq!(api.asked(), 1);
        *api.answer.lock().unwrap() = Answer::Unknown("no answer".into());
        tokio::time::advance(REFUSED_FOR).await;
        for _ in 0..100 {
            assert!(matches!(keys.check(&one.token(), LONG, || api.read()).await, Proven::Unknown(_)));
        }
        assert_eq!(api.asked(), 2);
        *api.answer.lock().unwrap() = one.served();
        tokio::time::advance(SILENT_FOR).await;
        assert_eq!(keys.check(&one.token(), LONG, || api.read()).await, Proven::Signed);
    }
}
