//! The schedule's format for editors and manuals: JSON Schema, made from the very types that read the file.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::schedule::choice::{OneOrMany, ProveFile, WithFormat};
use crate::schedule::encrypt::RecipientFile;
use crate::schedule::file::{ScheduleFile, TargetFile};
use crate::schedule::format::{FormatFile, Part, PartFile};
use crate::schedule::measure::{Bytes, Seconds, Share};
use crate::sink::file::{Mode, Reader};
use crate::sink::{SINKS, STORES};

/// The schema of a schedule (draft 07, which every editor knows). A file under `include` is a list of its targets.
pub fn of_schedule() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<ScheduleFile>();
    schema.insert("title".into(), json!("tokenferry schedule"));
    let mut schema = Value::from(schema);
    for (kind, choices) in [("Cluster", CLUSTERS), ("Store", STORES)] {
        schema["definitions"][kind]["oneOf"] = one_of(choices);
    }
    schema
}

/// The schema of a file under `include`.
pub fn of_include() -> Value {
    let mut schema = of_schedule();
    let targets = schema["properties"]["targets"].clone();
    schema["type"] = targets["type"].clone();
    schema["items"] = targets["items"].clone();
    schema["title"] = json!("tokenferry schedule: targets of an included file");
    for key in ["properties", "required", "additionalProperties", "description"] {
        schema.as_object_mut().expect("a schema is an object").remove(key);
    }
    schema
}

const CLUSTERS: &[&str] = &["kubeconfig", "inCluster", "embedded"];

fn one_of(choices: &[&str]) -> Value {
    choices.iter().map(|key| json!({"required": [key]})).collect()
}

/// Exactly one key of a place names its sink.
pub fn one_sink(schema: &mut Schema) {
    schema.insert("oneOf".into(), one_of(SINKS));
}

/// What may have settings may stand there by its name alone, too.
pub fn bare(schema: &mut Schema) {
    let Some(Value::Array(choices)) = schema.get_mut("oneOf") else { return };
    let named: Vec<Value> = choices.iter().filter_map(|choice| choice["required"][0].as_str()).map(|name| json!({"const": name})).collect();
    choices.extend(named.into_iter().filter(|choice| !["env", "template"].iter().any(|whole| choice["const"] == *whole)));
}

/// A target of its own, which needs a name; `defaults` has none.
pub struct Named;

impl JsonSchema for Named {
    fn schema_name() -> Cow<'static, str> {
        "NamedTarget".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"allOf": [generator.subschema_for::<TargetFile>()], "required": ["name"]})
    }
}

impl<T: JsonSchema> JsonSchema for WithFormat<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        let format = generator.subschema_for::<FormatFile>();
        let recipients = generator.subschema_for::<Vec<RecipientFile>>();
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            properties.insert(
                "format".into(),
                json!({"description": "How the token is written; the token alone when absent.", "allOf": [format]}),
            );
            let says = "To whom it is encrypted (age): public keys, age1…, each of whose secret halves opens it. Others who read the place \
                        learn its size and its times, and not whose token it is.";
            properties.insert("encryptTo".into(), json!({"description": says, "allOf": [recipients]}));
        }
        schema
    }
}

/// Texts that stand for an amount, a mode, a person: with a pattern, so that an editor marks what no reader takes.
macro_rules! texts {
    ($($type:ty, $name:literal, $pattern:literal, $says:literal;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "description": $says})
            }
        }
    )*};
}

texts! {
    Seconds, "Duration", r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "A duration: 90s, 15m, 24h, 1d (= 24h), or parts of it after one another, the largest first: 1h30m.";
    Bytes, "Size", r"^[0-9]+(B|KiB|MiB|GiB)$", "A size: 64MiB.";
    Share, "Share", r"^[0-9]+(\.[0-9]+)?%$", "A share: 80%, 66.7%.";
    Mode, "Mode", r"^(0o)?[0-7]{3,4}$", "Permission bits: octal digits in quotes, \"0640\".";
    RecipientFile, "Recipient", r"^age1[02-9ac-hj-np-z]{58}$", "The public half of an age key, as `age-keygen` prints it.";
    Reader, "Reader", r"^(user|group):[^:/\s]+$", "Who may read: user:NAME or group:NAME, by name or id.";
}

impl JsonSchema for Part {
    fn schema_name() -> Cow<'static, str> {
        PartFile::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        PartFile::json_schema(generator)
    }
}

impl JsonSchema for OneOrMany {
    fn schema_name() -> Cow<'static, str> {
        "TextOrTexts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}], "description": "A text, or a list of texts."})
    }
}

impl JsonSchema for ProveFile {
    fn schema_name() -> Cow<'static, str> {
        "Prove".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let every = generator.subschema_for::<Seconds>();
        json_schema!({
            "description": "`{every: 1h}`, or `false`.",
            "anyOf": [
                {"type": "boolean"},
                {"type": "object", "additionalProperties": false, "properties": {"every": {"description": "Time between two tries of a delivered token.", "allOf": [every]}}}
            ]
        })
    }
}
