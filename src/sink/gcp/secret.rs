//! A secret in Secret Manager: read, compared, written, read back.

use std::collections::BTreeMap;

use google_cloud_secretmanager_v1::client::SecretManagerService;
use google_cloud_secretmanager_v1::model::replication::UserManaged;
use google_cloud_secretmanager_v1::model::replication::user_managed::Replica;
use google_cloud_secretmanager_v1::model::{Replication, Secret, SecretPayload};
use google_cloud_wkt::FieldMask;
use zeroize::Zeroizing;

use super::refusal::{self, Verdict};
use super::{GcpSpec, GcpStoreSpec, versions};
use crate::sink::manners::{self, MARK};
use crate::sink::{Context, FailureKind, Ours, Put, Removal};

/// Under this key of the annotations stands the number of the first version that we made.
const FIRST: &str = "tokenferry.first";

/// A secret, where it stands and who we are.
pub(super) struct Place<'a> {
    pub client: SecretManagerService,
    pub spec: &'a GcpSpec,
    pub store: &'a GcpStoreSpec,
    /// The secret's whole name.
    pub name: String,
}

/// The version in use.
#[derive(Default)]
pub(super) struct Current {
    /// `None`: there is none that can be read.
    pub text: Option<Zeroizing<Vec<u8>>>,
    pub number: u64,
}

impl Place<'_> {
    /// Sets the secret where it differs.
    pub async fn set(&self, payload: &[u8], context: &Context<'_>) -> Result<Put, Verdict> {
        let current = self.read().await?;
        let Some(found) = self.describe().await? else {
            self.create(context).await?;
            return self.add(payload).await;
        };
        let held = current.text.as_deref().and_then(|text| std::str::from_utf8(text).ok());
        if let Some(why) = held.and_then(|held| context.superseded(held)) {
            return Err(Verdict::new(FailureKind::Superseded, why));
        }
        let marked = is_marked(&found);
        if !(marked || self.spec.adopt || is_free(&current, context.manners.ours)) {
            return Err(self.not_ours(context));
        }
        let first = found.annotations.get(FIRST).and_then(|text| text.parse().ok()).unwrap_or(current.number + 1);
        let wish = annotations(context, first);
        let said = marked && wish.iter().all(|(key, value)| found.annotations.get(key) == Some(value));
        if !marked {
            self.mark(&found, &wish).await?;
        }
        let same = current.text.as_deref().is_some_and(|text| text == payload);
        let put = if same { Put::Unchanged } else { self.add(payload).await? };
        if marked && !said {
            self.mark(&found, &wish).await?;
        }
        versions::retire(self, context, first).await;
        Ok(put)
    }

    /// Reads what a put would read, and says what was found.
    pub async fn probe(&self, context: &Context<'_>) -> Result<String, Verdict> {
        let current = self.read().await?;
        let there = match self.describe().await? {
            None => "is not there yet",
            Some(found) if is_marked(&found) || self.spec.adopt || is_free(&current, context.manners.ours) => "is there and ours",
            Some(_) => return Err(self.not_ours(context)),
        };
        Ok(format!("`{}` {there}; whether it may be written Google does not say before", self.spec.secret_id))
    }

    /// Deletes the secret where it is ours: Google does so at once, with all its versions.
    pub async fn remove(&self, ours: Ours<'_>) -> Result<Removal, Verdict> {
        let Current { text, .. } = self.read().await?;
        let Some(found) = self.describe().await? else { return Ok(Removal::Nothing) };
        let is_ours = match &text {
            Some(text) => std::str::from_utf8(text).is_ok_and(|text| ours.is(text)),
            None => is_marked(&found),
        };
        if !is_ours {
            return Ok(Removal::Left);
        }
        // Not where somebody changed it meanwhile.
        match self.client.delete_secret().set_name(&self.name).set_etag(&found.etag).send().await {
            Ok(()) => Ok(Removal::Gone),
            Err(error) if refusal::is_missing(&error) => Ok(Removal::Gone),
            Err(error) => Err(self.refused(&error, "delete", "secretmanager.secrets.delete")),
        }
    }

    /// The version in use. One that was disabled or destroyed holds nothing.
    pub async fn read(&self) -> Result<Current, Verdict> {
        let latest = format!("{}/versions/latest", self.name);
        let found = match self.client.access_secret_version().set_name(latest).send().await {
            Ok(found) => found,
            Err(error) if refusal::is_missing(&error) || refusal::is_out_of_use(&error) => return Ok(Current::default()),
            Err(error) => return Err(self.refused(&error, "read", "secretmanager.versions.access")),
        };
        let broken = |why: &str| {
            let doing = format!("cannot read `{}`", self.spec.secret_id);
            Verdict::new(FailureKind::BadAnswer, format!("{doing}: {why}"))
        };
        let number = number(&found.name).ok_or_else(|| broken("the answer is not of Google Secret Manager: check `endpoint`"))?;
        let payload = found.payload.unwrap_or_default();
        let text = Zeroizing::new(payload.data.to_vec());
        if payload.data_crc32c.is_some_and(|sum| sum != crc32c(&text)) {
            return Err(broken("its checksum is not that of what came: it was damaged on the way"));
        }
        Ok(Current { text: Some(text), number })
    }

    async fn describe(&self) -> Result<Option<Secret>, Verdict> {
        match self.client.get_secret().set_name(&self.name).send().await {
            Ok(found) => Ok(Some(found)),
            Err(error) if refusal::is_missing(&error) => Ok(None),
            Err(error) => Err(self.refused(&error, "look at", "secretmanager.secrets.get")),
        }
    }

    async fn create(&self, context: &Context<'_>) -> Result<(), Verdict> {
        let replicas: Vec<Replica> = self.store.locations.iter().map(|location| Replica::new().set_location(location)).collect();
        let replication = if replicas.is_empty() {
            Replication::new().set_automatic(google_cloud_secretmanager_v1::model::replication::Automatic::new())
        } else {
            Replication::new().set_user_managed(UserManaged::new().set_replicas(replicas))
        };
        let secret = Secret::new().set_replication(replication).set_labels([MARK]).set_annotations(annotations(context, 1));
        let create = self.client.create_secret().set_parent(format!("projects/{}", self.store.project));
        let created = create.set_secret_id(&self.spec.secret_id).set_secret(secret).send().await;
        created.map(drop).map_err(|error| self.refused(&error, "create", "secretmanager.secrets.create on the project"))
    }

    /// Says beside the secret whose it is. What others say there stays.
    async fn mark(&self, found: &Secret, wish: &BTreeMap<String, String>) -> Result<(), Verdict> {
        let mut labels = found.labels.clone();
        labels.insert(MARK.0.to_owned(), MARK.1.to_owned());
        let mut annotations = found.annotations.clone();
        annotations.extend(wish.clone());
        let secret = Secret::new().set_name(&self.name).set_etag(&found.etag).set_labels(labels).set_annotations(annotations);
        let update = self.client.update_secret().set_secret(secret);
        let updated = update.set_update_mask(FieldMask::default().set_paths(["labels", "annotations"])).send().await;
        updated.map(drop).map_err(|error| self.refused(&error, "mark", "secretmanager.secrets.update"))
    }

    /// Adds a version, and reads it back as the latest.
    async fn add(&self, payload: &[u8]) -> Result<Put, Verdict> {
        let sent = SecretPayload::new().set_data(bytes::Bytes::copy_from_slice(payload)).set_data_crc32c(crc32c(payload));
        let added = self.client.add_secret_version().set_parent(&self.name).set_payload(sent).send().await;
        let added = added.map_err(|error| self.refused(&error, "write", "secretmanager.versions.add"))?;
        let version = number(&added.name).unwrap_or_default();
        let Current { text, number } = self.read().await?;
        if text.as_deref().is_some_and(|text| text == payload) {
            return Ok(Put::Written);
        }
        let (kind, why) = if number > version {
            (FailureKind::Conflict, format!("was written, and somebody else added version {number}"))
        } else {
            (FailureKind::BadAnswer, "was acknowledged, and the latest version holds something else".to_owned())
        };
        Err(Verdict::new(kind, format!("version {version} of `{}` {why}", self.spec.secret_id)))
    }

    /// The verdict on an error, named after this secret.
    pub fn refused(&self, error: &google_cloud_gax::error::Error, verb: &str, right: &str) -> Verdict {
        refusal::of(error, &format!("cannot {verb} `{}`", self.spec.secret_id), right)
    }

    fn not_ours(&self, context: &Context<'_>) -> Verdict {
        let why = format!(
            "`{}` is there and not ours: it lacks the label {}={} and holds no token of target {}. Nothing was overwritten: \
             write `adopt: true` beside its `secretId` to take it over, or name another secret",
            self.spec.secret_id, MARK.0, MARK.1, context.target
        );
        Verdict::new(FailureKind::Refused, why)
    }
}

/// Whether nothing stands there, or a token of this target.
fn is_free(current: &Current, ours: Ours<'_>) -> bool {
    match &current.text {
        Some(text) => std::str::from_utf8(text).is_ok_and(|text| ours.is(text)),
        None => current.number == 0,
    }
}

fn is_marked(found: &Secret) -> bool {
    found.labels.get(MARK.0).is_some_and(|who| who == MARK.1)
}

/// What we say beside a secret. A key of Google's has no slash.
fn annotations(context: &Context<'_>, first: u64) -> BTreeMap<String, String> {
    let marks = manners::marks(context, |text| Some(text.to_owned()));
    let marks = marks.into_iter().filter(|(key, _)| key != MARK.0).map(|(key, value)| (key.replace('/', "."), value));
    marks.chain([(FIRST.to_owned(), first.to_string())]).collect()
}

/// The number of a version, from its whole name.
pub(super) fn number(name: &str) -> Option<u64> {
    name.rsplit_once("/versions/")?.1.parse().ok()
}

/// CRC-32C (RFC 3720, appendix B.4), as Google takes it: in 64 bits.
fn crc32c(bytes: &[u8]) -> i64 {
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()));
    i64::from(!bytes.iter().fold(!0, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xff; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn a_version_is_known_by_the_end_of_its_name() {
        assert_eq!(number("projects/1/secrets/a/versions/12"), Some(12));
        for name in ["", "projects/1/secrets/a", "projects/1/secrets/a/versions/latest"] {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
