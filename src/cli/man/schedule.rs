//! tokenferry-schedule(5): every key of a schedule, from the JSON Schema that the reading types make.

use clap_mangen::roff::{Roff, bold, italic, roman};
use serde_json::{Map, Value};

use super::{Written, code, head};
use crate::schedule::schema;

const SKELETON: &str = "version: 1
clusters:
  prod: {kubeconfig: /etc/tokenferry/prod.kubeconfig}
targets:
  - name: ci-deployer
    cluster: prod
    serviceAccount: cicd/cicd-deployer
    duration: 36h
    rotate: {at: 80%, cron: \"0 2 * * *\", timeZone: Europe/Berlin}
    deliver:
      - file: {path: /run/tokenferry/ci/token, mode: \"0640\"}";

const ABOUT: [&str; 4] = [
    "A schedule says whose tokens are kept fresh, when, and where they go. It is strict YAML with keys in camelCase: an unknown key, a key that stands twice and a value of the wrong kind are errors with their line and column (tokenferry check).",
    "It is taken whole or not at all, at start as on reload. No value in it is ever a secret: secrets are files that it names. Relative paths count from the folder of the file that they stand in. ${CREDENTIALS_DIRECTORY} is the one variable, for files.",
    "A target's key takes the place of the same key under defaults, except rotate, which is merged key by key. Files that include names hold a list of targets each, and nothing else.",
    "tokenferry schema prints all of this as JSON Schema for an editor.",
];

pub(super) fn page() -> Written {
    let schema = schema::of_schedule();
    let mut roff = head("tokenferry-schedule", "5");
    roff.control("SH", ["NAME"]);
    roff.text([roman("tokenferry-schedule - what tokenferry keeps fresh, when, and where it goes")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman("/etc/tokenferry/schedule.yaml")]);
    roff.control("PP", []);
    code(&mut roff, SKELETON);
    roff.control("SH", ["DESCRIPTION"]);
    for (number, paragraph) in ABOUT.iter().enumerate() {
        if number > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(*paragraph)]);
    }
    roff.control("SH", ["TOP LEVEL"]);
    keys(&mut roff, &schema);
    let definitions: Map<String, Value> = schema["definitions"].as_object().cloned().unwrap_or_default();
    for name in in_order(&schema, &definitions) {
        section(&mut roff, &name, &definitions[&name]);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("tokenferry"),
        roman("(1), "),
        bold("tokenferry-check"),
        roman("(1), "),
        bold("tokenferry-plan"),
        roman("(1), "),
        bold("tokenferry"),
        roman("(8)"),
    ]);
    Written { name: "tokenferry-schedule.5".into(), text: roff.render() }
}

/// The definitions in the order in which a reader of the page meets them.
fn in_order(schema: &Value, definitions: &Map<String, Value>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut next = references(schema);
    next.retain(|name| definitions.contains_key(name));
    next.reverse();
    while let Some(name) = next.pop() {
        if order.contains(&name) {
            continue;
        }
        let mut more = references(&definitions[&name]);
        more.reverse();
        order.push(name);
        next.extend(more);
    }
    order
}

/// Names of the definitions that a schema refers to, those under `definitions` itself left out.
fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(map) => {
            let own = map.get("$ref").and_then(Value::as_str).map(|r| r.rsplit('/').next().unwrap_or(r).to_owned());
            own.into_iter().chain(map.iter().filter(|(key, _)| *key != "definitions").flat_map(|(_, value)| references(value))).collect()
        }
        Value::Array(list) => list.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

fn section(roff: &mut Roff, name: &str, schema: &Value) {
    // `NamedTarget` only says that a target needs a name.
    if schema["allOf"].is_array() {
        return;
    }
    roff.control("SH", [name]);
    if let Some(says) = schema["description"].as_str() {
        roff.text([roman(plain(says))]);
    }
    keys(roff, schema);
    let choices = ["oneOf", "anyOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
    for choice in choices {
        choice_of(roff, choice);
    }
}

/// One of several ways to write a value: a word, or a key with its settings.
fn choice_of(roff: &mut Roff, choice: &Value) {
    let says = choice["description"].as_str().map(plain).unwrap_or_default();
    let words = choice["const"].as_str().into_iter().chain(choice["enum"].as_array().into_iter().flatten().filter_map(Value::as_str));
    for word in words.filter(|_| !says.is_empty() || choice["enum"].is_array()) {
        roff.control("TP", []);
        roff.text([bold(word)]);
        roff.text([roman(if says.is_empty() { "as it stands" } else { &says })]);
    }
    for (key, value) in choice["properties"].as_object().into_iter().flatten() {
        roff.control("TP", []);
        roff.text([bold(key.as_str()), roman(": "), italic(kind(value))]);
        roff.text([roman(if says.is_empty() { "as its section says" } else { &says })]);
    }
}

fn keys(roff: &mut Roff, schema: &Value) {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        roff.control("TP", []);
        let needed = if required.contains(&key.as_str()) { " (required)" } else { "" };
        roff.text([bold(key.as_str()), roman(": "), italic(kind(value)), roman(needed)]);
        let mut says = value["description"].as_str().map(plain).unwrap_or_default();
        match &value["default"] {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::Array(list) if list.is_empty() => {}
            Value::Object(map) if map.is_empty() => {}
            default @ (Value::Object(_) | Value::Array(_)) => says += &format!(" Default: {default}."),
            Value::String(text) => says += &format!(" Default: {text}."),
            default => says += &format!(" Default: {default}."),
        }
        roff.text([roman(says.trim())]);
    }
}

/// What is written there, in a word.
fn kind(schema: &Value) -> String {
    let reference = schema["$ref"].as_str().or_else(|| {
        let inside = ["allOf", "anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
        inside.filter_map(|one| one["$ref"].as_str()).next()
    });
    if let Some(reference) = reference {
        return reference.rsplit('/').next().unwrap_or(reference).to_owned();
    }
    let types = match &schema["type"] {
        Value::Array(all) => all.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or("text"),
        Value::String(one) => one,
        _ => "value",
    };
    match types {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => format!("NAME: {}", kind(&schema["additionalProperties"])),
        "string" => "text".into(),
        "integer" => "number".into(),
        "boolean" => "true or false".into(),
        other => other.into(),
    }
}

/// A doc comment without its marks.
fn plain(text: &str) -> String {
    text.replace('`', "").replace('\n', " ")
}
