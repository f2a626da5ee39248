//! Until when a certificate is good (X.509, RFC 5280 §4.1.2.5): our own, and the one that an API server shows. Nothing
//! else of a certificate is read here; whether it is trusted is judged by TLS.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use kube::config::AuthInfo;

use crate::cluster::Cluster;

const CALL_WITHIN: Duration = Duration::from_secs(10);
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl Cluster {
    /// When the certificate that the API server shows ends, unix seconds.
    ///
    /// # Errors
    /// Why it cannot be seen.
    pub async fn served_until(&self) -> Result<i64, String> {
        let (url, ca) = self.address().await.map_err(|e| e.0)?.ok_or_else(|| "an embedded cluster has no API server".to_owned())?;
        let mut builder =
            reqwest::Client::builder().tls_backend_rustls().tls_info(true).timeout(CALL_WITHIN).redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = &ca {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(ca).unwrap_or_default());
        }
        let client = builder.build().map_err(|_| "no TLS client can be made".to_owned())?;
        let answer = client.get(format!("{url}/version")).send().await.map_err(|_| "it cannot be reached the direct way".to_owned())?;
        let shown = answer.extensions().get::<reqwest::tls::TlsInfo>().and_then(|info| info.peer_certificate());
        shown.and_then(until).ok_or_else(|| "its certificate cannot be read".to_owned())
    }
}

/// When the client certificate that a kubeconfig names ends, where it names one.
pub(super) fn of_user(user: &AuthInfo) -> Option<i64> {
    let pem = match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) => STANDARD.decode(data).ok()?,
        (None, Some(file)) => std::fs::read(file).ok()?,
        (None, None) => return None,
    };
    until(&first(std::str::from_utf8(&pem).ok()?)?)
}

/// The first certificate of a PEM text.
fn first(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}

/// `notAfter`, unix seconds.
fn until(der: &[u8]) -> Option<i64> {
    let certificate = Values(der).of(SEQUENCE)?;
    let mut fields = Values(Values(certificate).of(SEQUENCE)?);
    // Version (absent in version 1), serial number, algorithm of the signature, issuer.
    if fields.next()?.0 == VERSION {
        fields.next()?;
    }
    fields.next()?;
    fields.next()?;
    let mut validity = Values(fields.of(SEQUENCE)?);
    validity.next()?;
    let (tag, text) = validity.next()?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// `YYMMDDhhmmssZ` before 2050, `YYYYMMDDhhmmssZ` from then on.
fn time(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
    let whole = match (tag, digits.len()) {
        (UTC_TIME, 12) => format!("{}{digits}", if digits < "50" { "20" } else { "19" }),
        (GENERALIZED_TIME, 14) => digits.to_owned(),
        _ => return None,
    };
    let number = |from: usize| whole.get(from..from + 2)?.parse::<i8>().ok();
    let time = DateTime::new(whole.get(..4)?.parse().ok()?, number(4)?, number(6)?, number(8)?, number(10)?, number(12)?, 0).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|zoned| Timestamp::as_second(zoned.timestamp()))
}

/// Values of DER one after the other: tag and content.
struct Values<'a>(&'a [u8]);

impl<'a> Values<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            long @ 0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    fn of(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by `openssl req -x509` for 90 days, and for 20,000.
    const SOON: &str = "MIIBdTCCARugAwIBAgIUDJsVoVUJCt8VmAKWNfI2AQtPq6EwCgYIKoZIzj0EAwIwEDEOMAwGA1UEAwwFdW50aWwwHhcNMjYxMTMwMDAxOTAyWhcNMjcwMjI4MDAxOTAyWjAQMQ4wDAYDVQQDDAV1bnRpbDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABD5wS2U0AXNblhxAdE97mw8+/GU6Oy8dCESqBZbDojboro3CT+OSfzjnrFPDm61e53X9OdXq/m0nd65zIMq77p+jUzBRMB0GA1UdDgQWBBQdEpqsldXRkKFYwsMBYFJvQmDt7jAfBgNVHSMEGDAWgBQdEpqsldXRkKFYwsMBYFJvQmDt7jAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCzeNm4MBi/0mI27X4dMd188+fW7yvyyc84M3C5pVHzBAIgeVu81iAzCX0Uxng38HEwNXDl2cHdrAaIpEUXE9u7HsQ=";
    const LATE: &str = "MIIBbzCCARWgAwIBAgIUG6l5gAKNzJmOAo4bjzWi8hngnWgwCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBdTAgFw0yNjExMzAwMDE5MDJaGA8yMDgxMDkwMjAwMTkwMlowDDEKMAgGA1UEAwwBdTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABD5wS2U0AXNblhxAdE97mw8+/GU6Oy8dCESqBZbDojboro3CT+OSfzjnrFPDm61e53X9OdXq/m0nd65zIMq77p+jUzBRMB0GA1UdDgQWBBQdEpqsldXRkKFYwsMBYFJvQmDt7jAfBgNVHSMEGDAWgBQdEpqsldXRkKFYwsMBYFJvQmDt7jAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCICGy5iKBPsa+5QOyK5L1eFUV8JjnfccEb/tayMi1LfcQAiEAq/9hXqaf3DGRkiZrMIhgFSedPFZYHYH5RfF6p+EgEUg=";

    #[test]
    fn the_end_is_what_openssl_says() {
        let ends = |text: &str| until(&STANDARD.decode(text).unwrap()).map(|at| Timestamp::from_second(at).unwrap().to_string());
        assert_eq!(ends(SOON).as_deref(), Some("2027-02-28T00:19:02Z"));
        assert_eq!(ends(LATE).as_deref(), Some("2081-09-02T00:19:02Z"));
        let pem = format!("text before\n-----BEGIN CERTIFICATE-----\n{SOON}\n-----END CERTIFICATE-----\n");
        let user = AuthInfo { client_certificate_data: Some(STANDARD.encode(pem)), ..AuthInfo::default() };
        assert!(of_user(&user).is_some() && of_user(&AuthInfo::default()).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_no_certificate_has_no_end_and_does_no_harm(cut in 0usize..374, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut der = STANDARD.decode(SOON).unwrap();
            der.truncate(cut.min(der.len() - 1));
            prop_assert_eq!(until(&der), None);
            let _ = until(&bytes);
        }
    }
}
